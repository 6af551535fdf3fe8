//! Content of a regular file: sparse chunks, charged as they are allocated.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::node::{Result, VfsError};
use super::quota::Quota;

/// Largest chunk of content, in bytes.
const CHUNK: usize = 64 << 10;
/// Smallest allocation of a chunk, in bytes.
const MIN_CHUNK: usize = 64;
/// What a chunk costs besides its content, in bytes.
const CHUNK_COST: u64 = 64;
/// Largest size of a (sparse) file, in bytes.
const MAX_FILE: u64 = 1 << 40;

/// Chunks by index; a missing chunk, or the missing tail of a short one, reads as zeros.
#[derive(Debug, Default)]
pub(super) struct FileData {
    len: u64,
    chunks: BTreeMap<u64, Vec<u8>>,
    charged: u64,
}

impl FileData {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes charged to the quota for this file.
    pub(super) fn charged(&self) -> u64 {
        self.charged
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Bytes {
        let left = self.len.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        let mut out = BytesMut::with_capacity(len);
        let mut at = offset;
        while out.len() < len {
            let (index, start) = position(at);
            let take = (CHUNK - start).min(len - out.len());
            let chunk = self.chunks.get(&index).map(Vec::as_slice).unwrap_or_default();
            let have = chunk.get(start..chunk.len().min(start + take)).unwrap_or_default();
            out.extend_from_slice(have);
            out.resize(out.len() + take - have.len(), 0);
            at += take as u64;
        }
        out.freeze()
    }

    /// Writes all or nothing.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], quota: &Quota) -> Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_FILE).ok_or(VfsError::FileTooLarge)?;
        if data.is_empty() {
            return Ok(());
        }
        let growth: u64 = pieces(offset, data.len()).map(|piece| self.growth(&piece)).sum();
        quota.charge_bytes(growth)?;
        self.charged += growth;
        let mut rest = data;
        for Piece { index, start, len } in pieces(offset, data.len()) {
            let (now, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            let chunk = self.chunks.entry(index).or_default();
            let end = start + now.len();
            if chunk.capacity() < end {
                chunk.reserve_exact(capacity(end) - chunk.len());
            }
            if chunk.len() < end {
                chunk.resize(end, 0);
            }
            if let Some(target) = chunk.get_mut(start..end) {
                target.copy_from_slice(now);
            }
            rest = later;
        }
        self.len = self.len.max(end);
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64, quota: &Quota) -> Result<()> {
        if len > MAX_FILE {
            return Err(VfsError::FileTooLarge);
        }
        if len < self.len {
            let (index, start) = position(len);
            let first_gone = if start == 0 { index } else { index + 1 };
            let gone = self.chunks.split_off(&first_gone);
            let mut freed: u64 = gone.values().map(cost).sum();
            if start > 0
                && let Some(last) = self.chunks.get_mut(&index)
                && last.len() > start
            {
                let before = cost(last);
                last.truncate(start);
                last.shrink_to(capacity(start));
                freed += before - cost(last);
            }
            self.charged -= freed;
            quota.release_bytes(freed);
        }
        self.len = len;
        Ok(())
    }

    /// What a write of this piece would add to the charge.
    fn growth(&self, piece: &Piece) -> u64 {
        let end = piece.start + piece.len;
        match self.chunks.get(&piece.index) {
            None => CHUNK_COST + capacity(end) as u64,
            Some(chunk) if chunk.capacity() < end => (capacity(end) - chunk.capacity()) as u64,
            Some(_) => 0,
        }
    }
}

/// The part of a write that falls into one chunk.
struct Piece {
    index: u64,
    start: usize,
    len: usize,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let (index, start) = position(offset + done as u64);
        let piece = Piece { index, start, len: (CHUNK - start).min(len - done) };
        done += piece.len;
        Some(piece)
    })
}

fn position(offset: u64) -> (u64, usize) {
    (offset / CHUNK as u64, (offset % CHUNK as u64) as usize)
}

/// The capacity a chunk of `len` bytes gets: the next power of two.
fn capacity(len: usize) -> usize {
    len.next_power_of_two().clamp(MIN_CHUNK, CHUNK)
}

fn cost(chunk: &Vec<u8>) -> u64 {
    CHUNK_COST + chunk.capacity() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::VfsLimits;

    fn quota(bytes: u64) -> Quota {
        Quota::new(VfsLimits { bytes, inodes: 1 })
    }

    #[test]
    fn agrees_with_a_plain_vector_over_random_operations() {
        let quota = quota(u64::MAX);
        let mut file = FileData::default();
        let mut model: Vec<u8> = Vec::new();
        let mut seed = 7u64;
        let mut next = |bound: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % bound
        };
        for round in 0..400 {
            let offset = next(300_000);
            if next(4) == 0 {
                file.set_len(offset, &quota).unwrap();
                model.resize(offset as usize, 0);
            } else {
                let data = vec![round as u8; next(150_000) as usize];
                file.write(offset, &data, &quota).unwrap();
                let end = offset as usize + data.len();
                if !data.is_empty() && model.len() < end {
                    model.resize(end, 0);
                }
                if !data.is_empty() {
                    model[offset as usize..end].copy_from_slice(&data);
                }
            }
            assert_eq!(file.len(), model.len() as u64, "round {round}");
            assert!(file.read(0, model.len() + 10) == model[..], "round {round}");
            assert_eq!(quota.usage().0, file.charged());
            assert_eq!(file.charged(), file.chunks.values().map(cost).sum::<u64>());
        }
        file.set_len(0, &quota).unwrap();
        assert_eq!(quota.usage().0, 0);
    }

    #[test]
    fn is_sparse_and_bounded() {
        let quota = quota(1000);
        let mut file = FileData::default();
        file.set_len(1 << 39, &quota).unwrap();
        assert_eq!(quota.usage().0, 0);
        assert_eq!(&file.read((1 << 39) - 3, 10)[..], &[0, 0, 0]);
        file.write(1 << 38, b"x", &quota).unwrap();
        assert_eq!(quota.usage().0, CHUNK_COST + MIN_CHUNK as u64);
        assert_eq!(file.write(0, &[1; 1000], &quota), Err(VfsError::NoSpace));
        assert_eq!(file.set_len(MAX_FILE + 1, &quota), Err(VfsError::FileTooLarge));
        assert_eq!(file.write(u64::MAX, b"x", &quota), Err(VfsError::FileTooLarge));
        assert_eq!(file.read(u64::MAX, 1).len(), 0);
    }
}
