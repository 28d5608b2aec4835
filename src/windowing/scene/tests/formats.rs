//! Every format gives the same samples; frames that are too short give errors.

use proptest::prelude::*;

use super::{HEIGHT, WIDTH, Yuv, picture};
use crate::windowing::scene::figures;
use crate::windowing::scene::picture::{Picture, PictureError, PixelFormat, Plane};
use crate::windowing::scene::sample::{CODE, COLUMNS, ROWS, Sample, Sampler};

fn sample(yuv: &Yuv, format: PixelFormat) -> Sample {
    let mut sample = Sample::default();
    Sampler::default().read(&picture(format, &yuv.to(format)), &mut sample);
    sample
}

fn is_rgb(name: &str) -> bool {
    name.to_lowercase().contains("rgb") || name.to_lowercase().contains("bgr")
}

#[test]
fn formats_of_the_same_luma_and_chroma_give_the_same_samples() {
    let yuv = Yuv::scene(1, 0, 0);
    let expected = sample(&yuv, PixelFormat::I420);
    for (format, name) in PixelFormat::ALL {
        let found = sample(&yuv, format);
        if is_rgb(name) {
            continue;
        }
        assert_eq!(found.luma, expected.luma, "{name}");
        if !name.starts_with("GRAY") {
            assert_eq!(found.chroma, expected.chroma, "{name}");
        } else {
            assert_eq!(found.chroma, Sample::default().chroma, "{name}");
        }
    }
}

#[test]
fn rgb_gives_the_samples_of_the_planes_it_was_made_from() {
    // Within what RGB can hold.
    let yuv = Yuv::scene(1, 0, 0).map(|v| 60.0 + v / 2.0, 0.5);
    let expected = sample(&yuv, PixelFormat::I420);
    let first = sample(&yuv, PixelFormat::Rgb);
    for (format, name) in PixelFormat::ALL.into_iter().filter(|(_, name)| is_rgb(name)) {
        let found = sample(&yuv, format);
        assert_eq!(found, first, "{name}");
        let cells = found.luma.iter().flatten().zip(expected.luma.iter().flatten());
        assert!(cells.clone().all(|(a, b)| u32::from(a.abs_diff(*b)) <= 2 * CODE), "{name}");
        let far = |a: &Sample, b: &Sample| {
            let cells = a.chroma.iter().flatten().flatten().zip(b.chroma.iter().flatten().flatten());
            cells.map(|(a, b)| u32::from(a.abs_diff(*b))).max()
        };
        assert!(far(&found, &expected) <= Some(6 * CODE), "{name}: {:?}", far(&found, &expected));
    }
}

#[test]
fn deep_samples_keep_steps_below_one_code() {
    let mut yuv = vec![(Vec::new(), 2 * WIDTH)];
    yuv[0].0 = (0..WIDTH * HEIGHT).flat_map(|_| 0x1080u16.to_le_bytes()).collect();
    let mut sample = Sample::default();
    Sampler::default().read(&picture(PixelFormat::Gray16Le, &yuv), &mut sample);
    assert!(sample.luma.iter().flatten().all(|&cell| u32::from(cell) == 16 * CODE + CODE / 2));
}

#[test]
fn a_sampler_follows_a_change_of_size() {
    let (small, large) = (vec![70u8; 16 * 16], vec![90u8; 400 * 300]);
    let mut sampler = Sampler::default();
    let mut sample = Sample::default();
    for (data, width, height, level) in
        [(&small, 16, 16, 70), (&large, 400, 300, 90), (&small, 16, 16, 70), (&small, 1, 1, 70)]
    {
        let picture = Picture::new(PixelFormat::Gray8, width, height, &[Plane { data, stride: width }]).expect("whole");
        sampler.read(&picture, &mut sample);
        assert!(sample.luma.iter().flatten().all(|&cell| u32::from(cell) == level * CODE));
    }
}

#[test]
fn names_are_those_of_caps() {
    for (format, name) in PixelFormat::ALL {
        assert_eq!(PixelFormat::from_name(name), Some(format));
        assert_eq!(format.name(), name);
    }
    assert_eq!(PixelFormat::from_name("P016_LE"), None);
}

#[test]
fn frames_that_are_not_whole_are_refused() {
    for (format, name) in PixelFormat::ALL {
        let planes = Yuv::flat(90).to(format);
        let with = |change: &dyn Fn(&mut Vec<Plane>)| {
            let mut planes = planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
            change(&mut planes);
            Picture::new(format, WIDTH, HEIGHT, &planes).map(|_| ())
        };
        assert_eq!(with(&|_| ()), Ok(()), "{name}");
        // The padding of the last row may be missing, pixels may not.
        assert_eq!(with(&|p| p[0].data = &p[0].data[..p[0].data.len() - 5]), Ok(()), "{name}");
        for plane in 0..planes.len() {
            let short = with(&|p| p[plane].data = &p[plane].data[..p[plane].data.len() - 9]);
            assert!(matches!(short, Err(PictureError::Short { plane: at, .. }) if at == plane), "{name}: {short:?}");
            let narrow = with(&|p| p[plane].stride -= 9);
            assert!(matches!(narrow, Err(PictureError::Stride { plane: at, .. }) if at == plane), "{name}: {narrow:?}");
        }
        assert!(matches!(with(&|p| p.truncate(planes.len() - 1)), Err(PictureError::Planes { .. })), "{name}");
        assert!(matches!(Picture::new(format, 0, HEIGHT, &[]), Err(PictureError::Empty { .. })), "{name}");
    }
}

#[test]
fn exposure_is_the_share_between_black_and_white() {
    let exposure = |yuv: &Yuv| figures::of(&sample(yuv, PixelFormat::I420), None).exposure;
    assert_eq!(exposure(&Yuv::flat(16)), 0.0);
    assert_eq!(exposure(&Yuv::flat(240)), 0.0);
    assert_eq!(exposure(&Yuv::flat(120)), 1.0);
    let mut half = Yuv::flat(120);
    half.y[..WIDTH * HEIGHT / 2].fill(16);
    assert_eq!(exposure(&half), 0.5);
}

#[test]
fn complexity_is_gradient_and_change_in_codes() {
    let flat = |level| sample(&Yuv::flat(level), PixelFormat::I420);
    let figures = figures::of(&flat(120), Some(&flat(113)));
    assert_eq!((figures.detail, figures.change, figures.complexity()), (0.0, 7.0, 7.0));
    let mut ramp = Sample::default();
    for row in &mut ramp.luma {
        row.iter_mut().enumerate().for_each(|(column, cell)| *cell = column as u16 * CODE as u16);
    }
    assert_eq!(figures::of(&ramp, None).detail, 0.5);
    assert_eq!((ROWS, COLUMNS), (36, 64));
}

proptest! {
    /// Whatever was accepted can be read.
    #[test]
    fn no_geometry_makes_reading_panic(
        format in 0..PixelFormat::ALL.len(),
        width in prop_oneof![0usize..70, Just(usize::MAX), Just(usize::MAX / 2)],
        height in prop_oneof![0usize..40, Just(usize::MAX)],
        planes in proptest::collection::vec((0usize..20_000, prop_oneof![0usize..300, Just(usize::MAX)]), 0..4),
    ) {
        let data = vec![0xffu8; 20_000];
        let planes: Vec<Plane> = planes
            .into_iter()
            .map(|(length, stride)| Plane { data: &data[..length], stride })
            .collect();
        if let Ok(picture) = Picture::new(PixelFormat::ALL[format].0, width, height, &planes) {
            let mut sample = Sample::default();
            Sampler::default().read(&picture, &mut sample);
            prop_assert!(sample.luma.iter().flatten().all(|&cell| u32::from(cell) <= 255 * CODE));
        }
    }
}
