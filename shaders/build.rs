//! Tells cargo that a new file among the shaders changes this crate.

fn main() {
    println!("cargo::rerun-if-changed=wgsl");
    println!("cargo::rerun-if-changed=ladder");
}
