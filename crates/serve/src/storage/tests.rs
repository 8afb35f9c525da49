//! The same steps over a folder and over S3.

use std::time::Duration;

use super::{PART, Storage, s3};
use crate::stub_s3::StubS3;

/// What a storage promises.
async fn promises(storage: &Storage) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    storage.check().await.unwrap();
    assert_eq!(storage.read("jobs/a/1/out-0.png").await.unwrap(), None);
    assert!(!storage.get_to("jobs/a/1/out-0.png", &to).await.unwrap());
    assert!(!to.exists(), "nothing is written for an object that is not there");
    storage.delete("jobs/a/1/out-0.png").await.unwrap();

    // One byte more than two parts.
    let large: Vec<u8> = (0..2 * PART + 1).map(|i| (i % 251) as u8).collect();
    std::fs::write(&from, &large).unwrap();
    assert_eq!(
        storage.put_file("trainings/a/checkpoints/step-1 2.bin", &from).await.unwrap(),
        large.len() as u64
    );
    assert!(storage.get_to("trainings/a/checkpoints/step-1 2.bin", &to).await.unwrap());
    assert!(std::fs::read(&to).unwrap() == large);

    for (key, text) in [("jobs/a/1/out-0.png", "zero"), ("jobs/a/2/out-0.png", "one"), ("jobs/ab/1/x", "two")]
    {
        storage.put(key, text.into()).await.unwrap();
    }
    storage.put("jobs/a/1/out-0.png", "again".into()).await.unwrap();
    assert_eq!(storage.read("jobs/a/1/out-0.png").await.unwrap().unwrap(), "again");
    let listed = [("jobs/a/1/out-0.png".to_string(), 5), ("jobs/a/2/out-0.png".to_string(), 3)];
    assert_eq!(storage.list("jobs/a").await.unwrap(), listed);
    storage.delete_prefix("jobs/a/").await.unwrap();
    assert_eq!(storage.list("jobs").await.unwrap(), [("jobs/ab/1/x".to_string(), 3)]);
    assert!(storage.put_file("jobs/a/1/none", &folder.path().join("none")).await.is_err());
    for key in ["", "a//b", "../a", "a/../b", "a/./b"] {
        assert!(storage.put(key, "x".into()).await.is_err(), "{key}");
    }
}

/// Protects: objects in a folder are whole, replaced whole, found by prefixes of whole names, and gone when deleted.
#[tokio::test]
async fn a_folder() {
    let folder = tempfile::tempdir().unwrap();
    promises(&Storage::folder(&folder.path().join("files")).unwrap()).await;
    assert!(!folder.path().join("files/jobs/a").exists());
}

/// Protects: the same in S3, where large files go up in parts, and keys lie below the prefix of the address.
#[tokio::test]
async fn a_bucket() {
    let stub = StubS3::start().await;
    let store = s3::open_with("s3://bucket/some/prefix/", stub.builder()).unwrap();
    promises(&Storage { store, folder: None }).await;
    assert_eq!(stub.keys(), ["some/prefix/jobs/ab/1/x", "some/prefix/trainings/a/checkpoints/step-1 2.bin"]);
    assert_eq!(stub.uploads(), 0, "no upload in parts is left behind");
}

/// Protects: a storage that fails is an error of ours, and leaves no half object.
#[tokio::test]
async fn a_bucket_that_refuses() {
    let stub = StubS3::start().await;
    let store = s3::open_with("s3://bucket", stub.builder().with_access_key_id("wrong")).unwrap();
    let storage = Storage { store, folder: None };
    let problem = tokio::time::timeout(Duration::from_secs(20), storage.check())
        .await
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(problem.starts_with("the storage: files/none: "), "{problem}");
    assert!(storage.put("jobs/a/1/x", "x".into()).await.is_err());
    assert!(stub.keys().is_empty());
}

/// Protects: an address that is not one of S3 is refused with what is expected.
#[test]
fn addresses() {
    for address in ["", "bucket", "gs://bucket", "s3://", "s3:///prefix", "s3://bucket/a/../b"] {
        let problem = s3::open_with(address, Default::default()).unwrap_err().to_string();
        assert!(problem.contains("expected s3://BUCKET or s3://BUCKET/PREFIX"), "{address}: {problem}");
    }
}
