use super::*;

fn refused(change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    change(&mut config);
    let refused = Windows::new(&config).expect_err("refused").to_string();
    assert!(refused.contains("set ") && refused.ends_with('.'), "{refused}");
    refused
}

#[test]
fn defaults_are_accepted_with_each_strategy_that_needs_no_hop() {
    for strategy in [Strategy::Fixed, Strategy::Keyframe, Strategy::Adaptive, Strategy::Scene, Strategy::Event] {
        assert_eq!(Config { strategy, ..Config::default() }.check(), Ok(()));
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_property_to_set() {
    type Change = Box<dyn FnOnce(&mut Config)>;
    let cases: Vec<(&str, Change)> = vec![
        ("duration", Box::new(|config| config.duration = Ns::ZERO)),
        ("duration", Box::new(|config| config.duration = Ns(-1))),
        ("duration", Box::new(|config| config.duration = Ns::MAX)),
        ("hop", Box::new(|config| config.strategy = Strategy::Sliding)),
        ("hop", Box::new(|config| (config.strategy, config.hop) = (Strategy::Sliding, Ns(1)))),
        ("min-duration", Box::new(|config| (config.min_duration, config.max_duration) = (Ns(2), Ns(1)))),
        ("min-duration", Box::new(|config| config.min_duration = Ns::MIN)),
        ("max-duration", Box::new(|config| (config.strategy, config.max_duration) = (Strategy::Keyframe, secs(9)))),
        ("target-complexity", Box::new(|config| config.target_complexity = -1.)),
        ("target-complexity", Box::new(|config| config.target_complexity = f64::NAN)),
        ("target-complexity", Box::new(|config| (config.strategy, config.duration) = (Strategy::Adaptive, Ns::ZERO))),
        ("min-quality", Box::new(|config| config.min_quality = 1.1)),
        ("scene-threshold", Box::new(|config| (config.strategy, config.scene_threshold) = (Strategy::Scene, 0.))),
        ("scene-threshold", Box::new(|config| (config.strategy, config.scene_threshold) = (Strategy::Scene, f64::NAN))),
        ("max-ring-bytes", Box::new(|config| (config.strategy, config.max_ring_bytes) = (Strategy::Event, 0))),
        ("max-duration", Box::new(|config| (config.strategy, config.max_duration) = (Strategy::Event, secs(14)))),
        ("quality-policy", Box::new(|config| config.drop_poor = true)),
        ("max-duration", Box::new(|config| (config.strategy, config.buffer_lists) = (Strategy::Scene, true))),
    ];
    for (name, change) in cases {
        let refused = refused(change);
        assert!(refused.contains(name), "{name}: {refused}");
    }
    let overlapping = refused(|config| {
        (config.strategy, config.hop, config.buffer_lists) = (Strategy::Sliding, secs(5), true);
    });
    assert!(overlapping.contains("hop") && overlapping.contains("output=buffers"), "{overlapping}");
    refused(|config| {
        (config.strategy, config.pre_roll, config.post_roll) = (Strategy::Event, Ns::ZERO, Ns::ZERO);
    });
    refused(|config| {
        (config.strategy, config.hop, config.align_to_keyframe) = (Strategy::Sliding, secs(5), true);
    });
}

#[test]
fn what_the_strategy_does_not_use_is_not_looked_at() {
    let config = Config { scene_threshold: 7., max_ring_bytes: 0, ..Config::default() };
    assert_eq!(config.check(), Ok(()));
}
