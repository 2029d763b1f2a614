use super::*;
use crate::store::sim::{Fail, SimFs};
use crate::wiring::capacity::tests::capacity;
use fieldgate_hub::{Limits, LocalShard, MountpointError, PublisherInfo};
use fieldgate_model::masks::{Mask, Point};

fn masks(to: f32) -> Masks {
    let from = Point { x: 0.0, y: 0.0 };
    Masks::new(vec![Mask::Rectangle { from, to: Point { x: to, y: 0.5 } }]).unwrap()
}

fn desk(files: &SimFs) -> MaskDesk {
    let registry = Arc::new(Registry::new(1, Arc::new(fieldgate_net::RtmpForm)));
    MaskDesk::with_files(Box::new(files.clone()), registry, Arc::new(capacity(1)))
}

fn info() -> PublisherInfo {
    PublisherInfo { kind: "rtsp", from: "camera".into(), since_unix_micros: 0, rtmp: None }
}

#[tokio::test]
async fn masks_are_in_force_when_they_are_answered_and_outlive_the_process() {
    let files = SimFs::default();
    let desk = desk(&files);
    let mountpoint = desk.registry.add("gate", Limits::default()).unwrap();
    let derived = desk.registry.add("gate~h264", Limits::default()).unwrap();
    let other = desk.registry.add("gate-2", Limits::default()).unwrap();
    let local = LocalShard::new(0);
    let publisher = mountpoint.claim(&local, info()).unwrap();
    let epochs = (mountpoint.epoch(), derived.epoch(), other.epoch());
    assert_eq!(desk.set("gate", 0, masks(0.5)).unwrap(), 1);
    assert!(publisher.kicked().is_cancelled());
    assert_eq!((mountpoint.epoch(), derived.epoch(), other.epoch()), (epochs.0 + 1, epochs.1 + 1, epochs.2));
    desk.cut_since(&mountpoint, epochs.0).await;
    drop(publisher);
    assert!(matches!(mountpoint.claim(&local, info()), Err(MountpointError::Masked { .. })));
    assert!(mountpoint.claim_in(mountpoint.epoch(), &local, info()).is_ok());

    assert!(matches!(desk.set("gate", 0, masks(0.1)), Err(MaskError::Stale { current: 1 })));
    let again = self::desk(&files);
    assert_eq!(again.of("gate").unwrap(), masks(0.5));
    assert!(again.of("bay").unwrap().is_empty());
    let mountpoint = again.registry.add("gate", Limits::default()).unwrap();
    again.guard(&mountpoint);
    assert!(matches!(mountpoint.claim(&local, info()), Err(MountpointError::Masked { .. })));
    assert_eq!(again.set("gate", 1, Masks::none()).unwrap(), 2);
    assert!(mountpoint.claim(&local, info()).is_ok());
}

#[test]
fn a_power_cut_at_any_step_leaves_the_masks_of_before_or_after() {
    let files = SimFs::default();
    desk(&files).set("gate", 0, masks(0.5)).unwrap();
    for step in 0..8 {
        let trial = files.after_cut().pop().unwrap();
        let desk = desk(&trial);
        trial.failing(Fail::CutBefore(step));
        let set = desk.set("gate", 1, masks(0.9));
        for found in trial.after_cut() {
            let found = self::desk(&found).of("gate").unwrap();
            assert!(found == masks(0.9) || (found == masks(0.5) && set.is_err()), "step {step}: {found:?}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_never_means_no_masks() {
    let mut files = SimFs::default();
    files.write(FILE, b"{ torn").unwrap();
    let desk = desk(&files);
    assert!(matches!(desk.of("gate"), Err(MaskError::Lost { .. })));
    let mountpoint = desk.registry.add("gate", Limits::default()).unwrap();
    desk.guard(&mountpoint);
    assert!(matches!(mountpoint.claim(&LocalShard::new(0), info()), Err(MountpointError::Masked { .. })));
    desk.set("gate", 0, Masks::none()).unwrap();
    assert!(desk.of("gate").unwrap().is_empty());
    let again = self::desk(&files);
    assert!(again.of("gate").unwrap().is_empty());
    assert!(matches!(again.of("bay"), Err(MaskError::Lost { .. })), "others are still not known");
}
