//! The report's promises: one well-formed page that needs nothing from outside, whatever the names in it.

use ckaad_bundle::{Bundle, Precision};
use ckaad_inspect::imaging::{Placement, RgbImage};
use ckaad_inspect::{Counts, DecidedBy, StageTimes, Verdict};
use ckaad_train::evaluate::{CategoryRow, DefectRow, Evaluation, Judged, MaskLabels, PartMetrics};
use ckaad_train::metrics::{ImageMetrics, Pixels};
use ckaad_train::report::{self, Gallery};
use ndarray::{Array2, arr2};
use std::process::{Command, Output};

const HOSTILE: &str = "<script>alert('x' & \"y\")</script>";

/// The shipped bundle, with the report member of a run that had a failing discriminator.
fn bundle() -> Bundle {
    let mut bundle = Bundle::read(&ckaad_testing::demo_bundle()).unwrap();
    let epoch = |epoch: u32| {
        let falling = 1.0 / f64::from(epoch + 1);
        serde_json::json!({
            "epoch": epoch,
            "losses": {"reconstruction": falling, "discriminator": 6.0 + falling, "adversarial": -falling},
        })
    };
    bundle.report = Some(serde_json::json!({
        "gmac": 1.234, "parameters": 5_678_000,
        "evidence": {
            "normal_images": 93, "anomalous_images": 23, "image_auroc": 0.9321, "standard_error": 0.0234,
            "kinds": [{"kind": HOSTILE, "images": 23, "image_auroc": 0.9, "standard_error": 0.03, "unseen_auroc": 0.7125}],
            "terms": [{"term": "distance", "image_auroc": 0.81, "standard_error": 0.04}],
        },
        "training": {
            "warning": "the discriminator gives every patch the energy 0 & taught nothing",
            "history": (1..=12).map(epoch).collect::<Vec<_>>(),
        },
    }));
    bundle.manifest.licences.push(HOSTILE.to_owned());
    bundle
}

fn evaluation(masks: bool) -> Evaluation {
    let judged = |i: usize| {
        let defect = ["crack", HOSTILE].get(i % 4).map(|d| (*d).to_owned());
        let score = (i * 37 % 101) as f32 / 100.0 + if defect.is_some() { 0.4 } else { 0.0 };
        let path = format!("test/{}/{i:03}.png", defect.as_deref().unwrap_or("good"));
        Judged {
            path,
            defect,
            category: Some(HOSTILE.into()),
            score,
            map_maximum: score * 1.5,
            part: Some(format!("part {}", i / 2)),
        }
    };
    let samples: Vec<Judged> = (0..80).map(judged).collect();
    let scores: Vec<f32> = samples.iter().map(|s| s.score).collect();
    let labels: Vec<bool> = samples.iter().map(|s| s.defect.is_some()).collect();
    let image = ImageMetrics::of(&scores, &labels);
    let row = |defect: &str| DefectRow { defect: defect.to_owned(), images: 20, hits: 7, auroc: Some(0.8125) };
    let category = CategoryRow {
        category: HOSTILE.into(),
        normal_images: 40,
        anomalous_images: 40,
        image_auroc: Some(0.75),
        average_precision: Some(0.5),
        f1_max: None,
        pixel_auroc: None,
        aupro: Some(0.25),
        at_threshold: Counts::default(),
    };
    let mut pixels = Pixels::default();
    let map = arr2(&[[0.1, 0.2, 0.9], [0.3, 0.05, 0.4]]);
    pixels.add(map.view(), Some(map.map(|&v| v >= 0.4).view())).unwrap();
    Evaluation {
        model: "synthetic".into(),
        version: "1.2.3".into(),
        bundle_sha256: "0123456789abcdef".repeat(4),
        precision: Precision::Int8,
        data: format!("set of {HOSTILE}"),
        normal_images: 40,
        anomalous_images: 40,
        image,
        image_by_map_maximum: image,
        part: Some(PartMetrics { normal_parts: 20, anomalous_parts: 20, by_score: image, by_map_maximum: image }),
        pixel: masks.then(|| pixels.metrics().unwrap()),
        by_mask: masks.then_some(MaskLabels { differ: 3, image }),
        threshold: 0.83,
        at_threshold: Counts { hits: 14, misses: 26, false_alarms: 7, passed: 33 },
        defects: vec![row(HOSTILE), row("crack")],
        categories: vec![category.clone()],
        category_mean: Some(category),
        median_ms: 12.34,
        left_out: 0,
        samples,
    }
}

fn page(bundle: &Bundle, e: &Evaluation) -> String {
    let mut gallery = Gallery::new(bundle);
    let (width, height) = (bundle.manifest.input.width, bundle.manifest.input.height);
    let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90]));
    for judged in &e.samples {
        let verdict = Verdict {
            score: judged.score,
            map_score: judged.score,
            image_score: None,
            decided_by: DecidedBy::Map,
            threshold: e.threshold,
            normal_score: 0.0,
            map: Array2::from_shape_fn((height as usize, width as usize), |(_, x)| x as f32 / width as f32),
            placement: Placement { scale: (1.0, 1.0), origin: (0.0, 0.0) },
            pixel_threshold: 0.6,
            regions: vec![],
            smallest_region_px: 0.0,
            too_small: false,
            times: StageTimes::default(),
        };
        gallery.add(judged, &image, &verdict);
    }
    report::page(bundle, e, &gallery)
}

/// Every opened tag is closed in order, every attribute is quoted. Gives the names of all tags.
fn well_formed(html: &str) -> Result<Vec<String>, String> {
    let (mut open, mut names): (Vec<String>, Vec<String>) = (vec![], vec![]);
    let mut rest = html.strip_prefix("<!DOCTYPE html>").ok_or("no doctype")?;
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        if text.contains('>') {
            return Err(format!("a bare > in {text:?}"));
        }
        let end = rest[start..].find('>').ok_or("a tag does not end")? + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let opened = open.pop();
            if opened.as_deref() != Some(name) {
                return Err(format!("</{name}> closes {opened:?}"));
            }
            continue;
        }
        let (inner, closed) = tag.strip_suffix('/').map_or((tag, false), |inner| (inner, true));
        let name = inner.split(' ').next().unwrap_or_default().to_owned();
        let attributes = inner[name.len()..].trim();
        if attributes.matches('"').count() % 2 != 0 || attributes.matches('=').count() > attributes.matches('"').count()
        {
            return Err(format!("an attribute is not quoted in <{tag}>"));
        }
        if name == "style" {
            rest = &rest[rest.find("</style>").ok_or("<style> is not closed")?..];
        }
        if !closed {
            open.push(name.clone());
        }
        names.push(name);
    }
    if open.is_empty() { Ok(names) } else { Err(format!("never closed: {open:?}")) }
}

#[test]
fn the_checker_of_these_tests_finds_faults() {
    for broken in ["<p><b></p></b>", "<p>", "</p>", "<p class=\"x></p>", "<p class=x></p>", "<p>a > b</p>"] {
        assert!(well_formed(&format!("<!DOCTYPE html>{broken}")).is_err(), "{broken}");
    }
    assert!(well_formed("<!DOCTYPE html><p class=\"x\">a<br/></p>").is_ok());
}

#[test]
fn the_report_is_one_well_formed_page_with_every_section() {
    let bundle = bundle();
    let html = page(&bundle, &evaluation(true));
    let tags = well_formed(&html).unwrap();
    for section in [
        "Metrics",
        "At the threshold",
        "Scores",
        "Curves",
        "By defect",
        "Training",
        "Model",
        "Anomalous images with the highest scores",
        "Anomalous images with the lowest scores",
        "Normal images with the highest scores",
    ] {
        assert!(html.contains(&format!("<h2>{section}</h2>")), "no section {section}");
    }
    let count = |name: &str| tags.iter().filter(|t| *t == name).count();
    // Histogram, ROC, precision and recall, three losses; eight pictures of each kind.
    assert_eq!((count("svg"), count("img")), (6, 24));
    for text in [
        "14 of 40 anomalous images",
        "7 false alarms in 40",
        "12.3 ms",
        "1.23 billion",
        "5.68 million",
        "AUPRO (0.05)",
        "IoU-max",
        "0.9321 ± 0.0234",
        "<td>0.7125</td>",
        "distance alone",
    ] {
        assert!(html.contains(text), "{text} is missing");
    }
    assert!(html.contains("the energy 0 &amp; taught nothing"));
    assert!(!html.contains("NaN") && !html.contains(">inf"));
}

#[test]
fn names_from_outside_stay_text() {
    let bundle = bundle();
    let html = page(&bundle, &evaluation(true));
    let tags = well_formed(&html).unwrap();
    assert!(tags.iter().all(|t| t != "script"), "a folder's name became a tag");
    // The title twice, the defect's row, the licence, and pictures with caption and alternative text.
    assert!(html.matches("&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)&lt;/script&gt;").count() > 4);
}

#[test]
fn the_report_fetches_nothing() {
    let html = page(&bundle(), &evaluation(true));
    for outside in ["src=\"http", "href=", "url(", "@import", "<link", "<iframe"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut bundle = bundle();
    bundle.report = None;
    let mut e = evaluation(false);
    e.part = None;
    e.samples.retain(|s| s.defect.is_none());
    e.defects.clear();
    e.image = ImageMetrics::default();
    let html = page(&bundle, &e);
    well_formed(&html).unwrap();
    assert!(!html.contains("<h2>Training</h2>") && !html.contains("multiply-accumulates") && !html.contains("by part"));
    assert!(html.contains("no masks") && html.contains("one class only") && html.contains("no anomalous images"));
    // A report member of another make is no reason to fail.
    bundle.report = Some(serde_json::json!({"gmac": "x", "training": {"history": [1, {"epoch": null}], "warning": 3}}));
    assert!(!page(&bundle, &e).contains("<h2>Training</h2>"));
}

/// Loads `html` in headless Chromium with its log on standard error; `None` where there is no Chromium.
fn chromium(html: &str) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, html).unwrap();
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"])
        .args(["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("file://{}", file.display()));
    match command.output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("chromium: {e}"),
    }
}

fn console(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().filter(|l| l.contains("CONSOLE")).map(str::to_owned).collect()
}

#[test]
fn chromium_loads_the_report_without_a_word_on_its_console() {
    let html = page(&bundle(), &evaluation(true));
    let Some(output) = chromium(&html) else {
        ckaad_testing::skipped("no chromium here to load the report with");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(console(&output), Vec::<String>::new());
    let dom = String::from_utf8_lossy(&output.stdout);
    assert_eq!((dom.matches("<svg").count(), dom.matches("<img").count()), (6, 24));
    // The same page with a script in it: the page forbids scripts, and a complaint would have been seen.
    let with_script = html.replace("</body>", "<script>document.title = 'run'</script></body>");
    let complained = chromium(&with_script).unwrap();
    assert!(!console(&complained).is_empty(), "{}", String::from_utf8_lossy(&complained.stderr));
}
