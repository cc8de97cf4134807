use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use super::PreparedImage;

/// Names a picture by what the model takes for it: equal for equal pixels, within one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PictureId([u64; 2]);

/// Keys that nobody outside can know, so that nobody can make a picture that passes for another.
static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);

impl PreparedImage {
    /// The picture's name.
    pub fn id(&self) -> PictureId {
        PictureId(KEYS.each_ref().map(|keys| {
            let mut hasher = keys.build_hasher();
            hasher.write_usize(self.size);
            self.pixels.iter().chain(&self.crops).for_each(|value| hasher.write_u32(value.to_bits()));
            hasher.finish()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_named_by_pixels_and_crops() {
        let picture = PreparedImage::zeros(2);
        assert_eq!(picture.id(), picture.clone().id());
        let mut others = [PreparedImage::zeros(3), picture.clone(), picture.clone()];
        others[1].pixels[11] = 1.0;
        others[2].crops[47] = -0.0;
        let ids: std::collections::HashSet<_> = others.iter().map(PreparedImage::id).collect();
        assert_eq!((ids.len(), ids.contains(&picture.id())), (3, false));
    }
}
