//! Lets the command find libtorch where it was linked: a library's own link arguments do not reach its dependents.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let (Ok(libtorch), Ok(_)) = (std::env::var("LIBTORCH"), std::env::var("CARGO_FEATURE_TORCH")) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
}
