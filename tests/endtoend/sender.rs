//! `gst-launch-1.0` as a user runs it, with the plugin that was built for the tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::servers::Process;

pub struct Sender {
    process: Process,
    log: PathBuf,
}

impl Sender {
    /// Runs `gst-launch-1.0 LINE` through a shell, so that the line is what a user would type; its output goes into `directory`.
    pub fn start(directory: &Path, line: &str) -> Self {
        Self::start_as("sender", directory, line)
    }

    pub fn start_as(name: &str, directory: &Path, line: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec gst-launch-1.0 -m {line}")]);
        Self::run(name, directory, command)
    }

    /// Runs any command that uses the plugin; whatever it prints goes into the file `name`.log.
    pub fn run(name: &str, directory: &Path, mut command: Command) -> Self {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        command.stdout(output.try_clone().unwrap()).stderr(output);
        use_plugin(&mut command);
        Self { process: Process(command.spawn().unwrap()), log }
    }

    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.process.0
    }

    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    pub fn kill(&mut self) {
        self.process.signal("KILL");
        self.process.0.wait().unwrap();
    }

    /// What Ctrl-C does.
    pub fn interrupt(&self) {
        self.process.signal("INT");
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_some()
    }

    pub fn assert_runs(&mut self) {
        assert!(!self.has_ended(), "it has ended:\n{}", self.last_lines());
    }

    /// Lets some time pass, through which it has to run.
    pub fn run_on(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.assert_runs();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits, while it has to run.
    pub fn until(&mut self, what: &str, patience: Duration, mut done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            self.assert_runs();
            assert!(start.elapsed() < patience, "{what}\n{}", self.last_lines());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has ended by itself, which means that its stream ended and was delivered.
    pub fn finish(mut self, patience: Duration) -> String {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.process.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < patience, "it does not end:\n{}", self.last_lines());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}\n{}", self.last_lines());
        self.output()
    }

    fn last_lines(&self) -> String {
        let output = self.output();
        let lines: Vec<_> = output.lines().filter(|line| !line.contains("state-changed")).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Lets a child process find the plugin that belongs to this test program, with a registry that the tests share.
pub fn use_plugin(command: &mut Command) {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let built = std::env::current_exe().unwrap().with_file_name("libgststreambuffer.so");
        assert!(built.exists(), "{} is not there; build it with 'cargo build --release --lib'", built.display());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
        std::fs::create_dir_all(&directory).unwrap();
        let link = directory.join("libgststreambuffer.so");
        if std::fs::read_link(&link).ok().as_ref() != Some(&built) {
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&built, &link).unwrap();
        }
        directory
    });
    command.env("GST_PLUGIN_PATH", directory).env("GST_REGISTRY", directory.join("registry.bin"));
}
