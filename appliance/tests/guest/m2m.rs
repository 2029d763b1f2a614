//! Codecs behind V4L2 M2M: `vicodec`, used by GStreamer's elements inside a worker's sandbox.

use crate::machine::Machine;
use crate::vivid::done;

/// As the gateway starts workers.
const AS_WORKER: &str = "env -i ORC_CODE=backup GST_REGISTRY_DISABLE=yes GST_REGISTRY_FORK=no HOME=/ \
    setpriv --reuid 65534 --regid 65534 --groups 44 --bounding-set -all --no-new-privs --";

/// `program` is the test binary of the worker's inside.
pub(crate) fn codecs_work_in_the_sandbox(machine: &mut Machine, program: &str) {
    for module in ["v4l2-mem2mem", "vicodec"] {
        machine.must(&format!("insmod /run/modules/{module}.ko"));
    }
    machine.must("for file in /dev/video* /dev/media*; do chgrp 44 $file && chmod 660 $file || exit 1; done");
    for arguments in ["", "without"] {
        // Into a pipe: a worker may write no file.
        let told =
            machine.must(&format!("{{ {AS_WORKER} {program} {arguments}; echo ended $?; }} 2>&1 | cat"));
        for line in told.lines() {
            println!("        {line}");
        }
        assert!(told.ends_with("ended 0\n") && !told.contains("skipped"), "{told}");
    }
    done(
        machine,
        "an M2M encoder works in the whole sandbox with its device file allowed, its decoder is found; neither without",
    );
}
