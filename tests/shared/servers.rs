//! Servers in processes of their own, which record what they get and can be killed, and the ports they listen on.

use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::common::until;

/// A free port that no outgoing connection takes while its server is away: below those that systems give out.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = std::process::id() as u16;
    loop {
        let offset = base.wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::SeqCst).wrapping_mul(7)) % 10_000;
        let address = ("127.0.0.1", 20_000 + offset);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address.1;
        }
    }
}

/// A process that is killed when the test lets go of it.
pub struct Process(pub Child);

impl Process {
    pub fn interrupt(&mut self) {
        self.signal("INT");
        self.0.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that writes what it gets into a file.
pub trait Server {
    /// Returns when it listens. Records below `directory`.
    fn start(&self, directory: &Path) -> Process;
    fn demuxer(&self) -> &'static str;
}

/// `srtsrc` in another process.
pub struct Srt {
    pub port: u16,
}

impl Server for Srt {
    fn start(&self, directory: &Path) -> Process {
        let child = Command::new("gst-launch-1.0")
            .args(["-q", "-e", "srtsrc", &format!("uri=srt://127.0.0.1:{}?mode=listener", self.port), "!"])
            .args(["filesink", "buffer-mode=unbuffered", "location=dump.ts"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let listening = format!(":{:04X} ", self.port);
        until("the SRT listener is there", || {
            assert_eq!(process.0.try_wait().unwrap(), None, "gst-launch-1.0 has ended");
            std::fs::read_to_string("/proc/net/udp").unwrap().contains(&listening)
        });
        process
    }

    fn demuxer(&self) -> &'static str {
        "tsdemux !"
    }
}

/// nginx with its RTMP module. `scripts/test` unpacks it into a directory of its own and tells where.
pub struct Nginx {
    root: PathBuf,
    pub port: u16,
}

impl Nginx {
    pub fn find() -> Option<Self> {
        let told = std::env::var_os("STREAMBUFFER_NGINX").map(PathBuf::from);
        let root = told.clone().unwrap_or_else(|| "/".into());
        let nginx = Self { root, port: free_port() };
        let there = nginx.program().exists() && nginx.module().exists();
        assert!(there || told.is_none(), "there is no nginx with an RTMP module in {}", nginx.root.display());
        if !there {
            eprintln!("nginx with its RTMP module is not on this machine: this test did not run; scripts/test gets it");
        }
        there.then_some(nginx)
    }

    fn program(&self) -> PathBuf {
        self.root.join("usr/sbin/nginx")
    }

    fn module(&self) -> PathBuf {
        self.root.join("usr/lib/nginx/modules/ngx_rtmp_module.so")
    }
}

impl Server for Nginx {
    fn start(&self, directory: &Path) -> Process {
        // One process, as whoever runs the test, with nothing outside of the directory.
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
             load_module {};\n\
             events {{}}\n\
             rtmp {{ access_log off; server {{ listen 127.0.0.1:{}; application live {{\n\
             live on; record all; record_unique on; record_path {}; }} }} }}\n",
            self.module().display(),
            self.port,
            directory.display()
        );
        std::fs::write(directory.join("nginx.conf"), configuration).unwrap();
        let child = Command::new(self.program())
            .args([Path::new("-p"), directory, Path::new("-c"), Path::new("nginx.conf")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut process = Process(child);
        until("nginx listens", || {
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!("nginx: {status}: {}", std::fs::read_to_string(directory.join("stderr")).unwrap());
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        process
    }

    fn demuxer(&self) -> &'static str {
        "flvdemux !"
    }
}
