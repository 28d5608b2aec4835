#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gst_plugin_streambuffer_fuzz::programs::framesync(data));
