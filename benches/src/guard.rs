//! Of `src/guard/` what is pure.

#[path = "../../src/guard/classify/mod.rs"]
pub mod classify;
#[path = "../../src/guard/detector.rs"]
pub mod detector;
#[path = "../../src/guard/mimicry.rs"]
pub mod mimicry;
#[path = "../../src/guard/window.rs"]
pub mod window;
