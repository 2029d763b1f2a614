//! Has a release linked in the order of `code-order.ld`: code that runs once the gateway has started lies together.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=code-order.ld");
    // What finds the order links without one.
    println!("cargo::rerun-if-env-changed=FIELDGATE_CODE_ORDER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && !is("FIELDGATE_CODE_ORDER", "none") {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        let order = Path::new(&folder).join("code-order.ld");
        println!("cargo::rustc-link-arg-bin=fieldgate=-Wl,-T,{}", order.display());
    }
}
