//! Many requests on one model: each gets the text that it gets alone, nobody is lost, no page is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests stand outside #[test] functions")]

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use engine::generate::{GenerateOptions, generate};
use engine::sampler::Sampling;
use engine::scheduler::{Constraint, Event, Job, Limits, Reason, Refused, Scheduler, Task, Usage};
use engine::{KvType, LoadOptions, Model, Sequence};
use proptest::prelude::*;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/qwen3-tiny")
}

/// The tiny model, with a context long enough to share pages.
fn load() -> Model {
    let mut model =
        Model::load(&tiny(), &LoadOptions { threads: Some(2), ..LoadOptions::default() }).unwrap();
    model.config.seq_len = 512;
    model
}

fn limits(model: &Model) -> Limits {
    Limits { context: model.config.seq_len, running: 8, waiting: 64, kv_bytes: 1 << 30 }
}

/// Bytes of keys and values of so many pages.
fn pages(model: &Model, n: usize) -> u64 {
    (KvType::F16.bytes(&model.config, 64) * n) as u64
}

fn ids(model: &Model, n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 31 + seed * 17 + i * i * (seed + 1)) % model.config.vocab_size) as u32).collect()
}

fn job(id: u64, prompt: Vec<u32>, max_tokens: usize) -> Job {
    let sampling = Sampling { temperature: 0.9, seed: id, ..Sampling::default() };
    Job { id, prompt, max_tokens: Some(max_tokens), sampling, ignore_eos: true, ..Job::default() }
}

/// What a request gets alone.
fn alone(model: &Model, job: &Job) -> Vec<u32> {
    let mut sequence = Sequence::new(model, limits(model).context).unwrap();
    let options = GenerateOptions {
        max_tokens: job.max_tokens,
        sampling: job.sampling.clone(),
        ignore_eos: job.ignore_eos,
        ..GenerateOptions::default()
    };
    generate(model, &mut sequence, &job.prompt, &options, &mut |_| ControlFlow::Continue(())).unwrap().ids
}

/// All events of jobs, by id.
#[derive(Default)]
struct Heard {
    ids: HashMap<u64, Vec<u32>>,
    text: HashMap<u64, String>,
    ended: HashMap<u64, (Reason, Usage)>,
    vectors: HashMap<u64, Vec<f32>>,
    order: Vec<u64>,
}

impl Heard {
    fn hear(&mut self, id: u64, event: Event) {
        assert!(!self.ended.contains_key(&id), "{id} has ended already");
        match event {
            Event::Token { id: token, text, .. } => {
                self.ids.entry(id).or_default().push(token);
                self.text.entry(id).or_default().push_str(&text);
            }
            Event::Finished { text, reason, usage } => {
                self.text.entry(id).or_default().push_str(&text);
                self.ended.insert(id, (reason, usage));
                self.order.push(id);
            }
            Event::Embedded { vector, .. } => {
                self.vectors.insert(id, vector);
            }
            Event::Prompt(_) => {}
            Event::Failed(error) => panic!("{id}: {error}"),
        }
    }

    fn run(&mut self, scheduler: &mut Scheduler<'_>) {
        while scheduler.step(&mut |id, event| self.hear(id, event)).is_some() {}
    }
}

#[derive(Debug, Clone)]
struct Plan {
    /// Length of the common beginning, of the rest, of the answer, and the step before which it comes.
    jobs: Vec<(usize, usize, usize, usize)>,
    users: u64,
    running: usize,
    pages: usize,
    /// Job and step.
    cancels: Vec<(usize, usize)>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let job = (prop::sample::select(vec![0usize, 64, 130, 200]), 1usize..90, 1usize..20, 0usize..30);
    let cancels = prop::collection::vec((0usize..12, 0usize..40), 0..4);
    (prop::collection::vec(job, 1..12), 1u64..4, 1usize..9, 1usize..30, cancels)
        .prop_map(|(jobs, users, running, pages, cancels)| Plan { jobs, users, running, pages, cancels })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn everybody_gets_what_he_gets_alone_and_every_page_comes_back(plan in plans()) {
        let model = load();
        let limits = Limits { running: plan.running, kv_bytes: pages(&model, plan.pages), ..limits(&model) };
        let mut scheduler = Scheduler::new(&model, limits).unwrap();
        let mut heard = Heard::default();
        let new = |i: usize| {
            let (common, rest, max_tokens, _) = plan.jobs[i];
            let prompt = [ids(&model, common, 0), ids(&model, rest, i + 1)].concat();
            Job { user: i as u64 % plan.users, ..job(i as u64, prompt, max_tokens) }
        };
        let mut cancelled = Vec::new();
        let last = plan.jobs.iter().map(|job| job.3).chain(plan.cancels.iter().map(|c| c.1)).max().unwrap();
        for step in 0..=last {
            for i in (0..plan.jobs.len()).filter(|&i| plan.jobs[i].3 == step) {
                scheduler.submit(new(i)).unwrap();
            }
            for &(i, _) in plan.cancels.iter().filter(|cancel| cancel.1 == step) {
                if scheduler.cancel(|id| id == i as u64) > 0 {
                    cancelled.push(i);
                }
            }
            scheduler.step(&mut |id, event| heard.hear(id, event));
            let load = scheduler.load();
            prop_assert!(load.running <= plan.running);
            prop_assert!(load.pages + load.remembered_pages <= load.page_limit);
        }
        heard.run(&mut scheduler);
        for i in 0..plan.jobs.len() {
            let alone = alone(&model, &new(i));
            let got = heard.ids.get(&(i as u64)).cloned().unwrap_or_default();
            if cancelled.contains(&i) {
                prop_assert!(alone.starts_with(&got) && !heard.ended.contains_key(&(i as u64)));
            } else {
                prop_assert_eq!(&got, &alone);
                prop_assert_eq!(heard.ended[&(i as u64)].1.completion_tokens, alone.len());
            }
        }
        let load = scheduler.load();
        prop_assert_eq!((load.running, load.waiting, load.pages), (0, 0, 0));
    }
}

#[test]
fn a_beginning_is_computed_once() {
    let model = load();
    let mut scheduler = Scheduler::new(&model, limits(&model)).unwrap();
    let mut heard = Heard::default();
    let prompt = |i: usize| [ids(&model, 300, 0), ids(&model, 10, i)].concat();
    // Two at once: the second waits for what the first computes.
    scheduler.submit(job(1, prompt(1), 3)).unwrap();
    scheduler.submit(job(2, prompt(2), 3)).unwrap();
    heard.run(&mut scheduler);
    scheduler.submit(job(3, prompt(3), 3)).unwrap();
    heard.run(&mut scheduler);
    assert_eq!([1, 2, 3].map(|id| heard.ended[&id].1.cached_tokens), [0, 256, 256]);
    // Another user's tokens that differ early share nothing.
    scheduler.submit(job(4, ids(&model, 300, 9), 3)).unwrap();
    heard.run(&mut scheduler);
    assert_eq!(heard.ended[&4].1.cached_tokens, 0);
}

#[test]
fn a_short_prompt_overtakes_a_long_one() {
    let model = load();
    let mut scheduler = Scheduler::new(&model, limits(&model)).unwrap();
    let mut heard = Heard::default();
    scheduler.submit(job(1, ids(&model, 500, 1), 2)).unwrap();
    scheduler.step(&mut |id, event| heard.hear(id, event));
    scheduler.submit(job(2, ids(&model, 5, 2), 2)).unwrap();
    heard.run(&mut scheduler);
    assert_eq!(heard.order, [2, 1]);
}

#[test]
fn users_get_equal_shares() {
    let model = load();
    let mut scheduler = Scheduler::new(&model, Limits { running: 1, ..limits(&model) }).unwrap();
    let mut heard = Heard::default();
    for i in 0..10 {
        scheduler.submit(Job { user: 1, ..job(i, ids(&model, 20, i as usize), 5) }).unwrap();
    }
    for i in 10..12 {
        scheduler.submit(Job { user: 2, ..job(i, ids(&model, 20, i as usize), 5) }).unwrap();
    }
    heard.run(&mut scheduler);
    let places: Vec<usize> =
        [10, 11].iter().map(|id| heard.order.iter().position(|o| o == id).unwrap()).collect();
    assert!(places[0] <= 1 && places[1] <= 3, "{:?}", heard.order);
}

#[test]
fn what_cannot_be_run_is_refused() {
    let model = load();
    let narrow = Limits { running: 2, waiting: 1, ..limits(&model) };
    let mut scheduler = Scheduler::new(&model, narrow).unwrap();
    let context = limits(&model).context;
    let too_long = scheduler.submit(job(1, vec![1; context + 1], 1));
    assert!(matches!(too_long, Err(Refused::PromptTooLong { .. })));
    assert!(matches!(scheduler.submit(job(1, vec![], 1)), Err(Refused::Invalid(_))));
    let outside = model.config.vocab_size as u32;
    assert!(matches!(scheduler.submit(job(1, vec![outside], 1)), Err(Refused::Invalid(_))));
    // Two of them will run at once and one waits, however many come before the next step.
    (1..=3).for_each(|id| scheduler.submit(job(id, vec![1], 9)).unwrap());
    assert!(matches!(scheduler.submit(job(4, vec![1], 9)), Err(Refused::QueueFull { waiting: 3 })));
    scheduler.step(&mut |_, _| {});
    assert!(matches!(scheduler.submit(job(4, vec![1], 9)), Err(Refused::QueueFull { waiting: 1 })));
    assert!(Scheduler::new(&model, Limits { context: 0, ..limits(&model) }).is_err());
}

/// Lets even ids come, and is content with three.
struct Even {
    mask: Vec<u32>,
    left: usize,
}

impl Constraint for Even {
    fn allowed(&mut self) -> Result<&[u32], String> {
        Ok(&self.mask)
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        self.left -= 1;
        if id.is_multiple_of(2) { Ok(()) } else { Err(format!("{id} is odd")) }
    }

    fn is_finished(&mut self) -> bool {
        self.left == 0
    }
}

#[test]
fn a_constraint_holds_and_ends_the_answer() {
    let model = load();
    let mut scheduler = Scheduler::new(&model, limits(&model)).unwrap();
    let mut heard = Heard::default();
    let mask = vec![0x5555_5555; model.config.vocab_size.div_ceil(32)];
    let constraint = Some(Box::new(Even { mask, left: 3 }) as Box<dyn Constraint>);
    scheduler.submit(Job { constraint, ignore_eos: false, ..job(1, ids(&model, 9, 3), 50) }).unwrap();
    heard.run(&mut scheduler);
    assert!(heard.ids[&1].iter().all(|id| id % 2 == 0) && heard.ids[&1].len() <= 3);
    assert_eq!(heard.ended[&1].0, Reason::End);
}

#[test]
fn an_embedding_does_not_depend_on_its_company() {
    let model = load();
    let embed = |id, n, seed| Job { task: Task::Embed, ..job(id, ids(&model, n, seed), 0) };
    let mut scheduler = Scheduler::new(&model, limits(&model)).unwrap();
    let mut heard = Heard::default();
    scheduler.submit(embed(1, 150, 4)).unwrap();
    heard.run(&mut scheduler);
    scheduler.submit(job(3, ids(&model, 40, 5), 30)).unwrap();
    scheduler.submit(embed(2, 150, 4)).unwrap();
    heard.run(&mut scheduler);
    assert_eq!(heard.vectors[&1].len(), model.config.dim);
    // The pieces of the prompt are other ones, so the sums may differ in their last bits.
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + a.abs());
    assert!(heard.vectors[&1].iter().zip(&heard.vectors[&2]).all(close));
}
