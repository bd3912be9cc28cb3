//! Compiles the C++ shim against the headers of libtorch and links it to the library.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 8] = [
    "shim/store.cc",
    "shim/sockets.cc",
    "shim/group.cc",
    "shim/reducer.cc",
    "shim/device.cc",
    "shim/memory.cc",
    "shim/dlpack.cc",
    "shim/update.cc",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=shim");
    let libtorch = libtorch()?;
    let include = libtorch.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include("shim")
        .flag("-isystem")
        .flag(include.as_os_str())
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include").as_os_str())
        .flag("-Wno-unused-parameter")
        .files(SOURCES)
        .try_compile("forebay_c10d_shim")?;
    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    // Reaches the tests of this package only: a package that depends on it needs the same line in its own build script.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    Ok(())
}

fn libtorch() -> Result<PathBuf, String> {
    let folder = env::var_os("LIBTORCH").map(PathBuf::from).ok_or("LIBTORCH is not set: run `make setup` in the workspace")?;
    let header = Path::new("include/torch/csrc/distributed/c10d/reducer.hpp");
    if !folder.join(header).is_file() {
        return Err(format!("libtorch `{}`: no {}, expected libtorch 2.11: run `make setup`", folder.display(), header.display()));
    }
    Ok(folder)
}
