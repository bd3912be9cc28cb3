//! Lets tests and examples of this crate find libtorch at run time: an rpath to the folder that `LIBTORCH` names.
//!
//! `make setup` fills that folder and `.cargo/config.toml` sets the variable. Without it there is nothing to do here.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let libraries = std::path::Path::new(&libtorch).join("lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    }
}
