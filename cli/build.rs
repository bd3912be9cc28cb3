//! Lets the program that computes find libtorch where it was linked: a library's own link arguments do not reach its dependents.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg-bin=forebay-torch=-Wl,-rpath,{libtorch}/lib");
    }
}
