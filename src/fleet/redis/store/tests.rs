//! The scripts against the rules that they repeat, on a real server.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use proptest::{prelude::*, test_runner::TestRunner};
use redis::Connection;
use spillover_testing::redis::Server;

use super::{
    super::{
        Membership,
        ids::{IdSecret, read, to_recall, to_remember},
    },
    *,
};
use crate::fleet::{budget::StoredBudget, ids::StoredIds, rate::StoredRate};

/// What happens to a budget.
#[derive(Clone, Debug)]
enum Step {
    Take {
        after: u32,
        limit: u64,
        window: u64,
        amount: u64,
    },
    /// Of the window that was granted this many grants ago.
    Correct {
        of: usize,
        change: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = prop_oneof![0_u64..20, Just(MAX_WHOLE)];
    let take =
        (0_u32..2_000_000, prop_oneof![0_u64..50, Just(MAX_WHOLE)], 1_u64..5_000_000, amount)
            .prop_map(|(after, limit, window, amount)| Step::Take { after, limit, window, amount });
    let change = prop_oneof![-30_i64..30, Just(-(MAX_WHOLE as i64))];
    let correct = (0_usize..4, change).prop_map(|(of, change)| Step::Correct { of, change });
    prop::collection::vec(prop_oneof![3 => take, 1 => correct], 1..40)
}

fn eval(
    connection: &mut Connection,
    script: &Script,
    key: &str,
    arguments: &[impl redis::ToRedisArgs],
) -> Value {
    let mut invocation = script.prepare_invoke();
    invocation.key(key);
    for argument in arguments {
        invocation.arg(argument);
    }
    invocation.invoke(connection).expect("a script that runs")
}

#[test]
fn the_script_of_a_budget_gives_the_answers_of_the_rule() {
    let Some(server) = Server::start(&[]) else { return };
    let client = redis::Client::open(server.url()).unwrap();
    let connection = RefCell::new(client.get_connection().unwrap());
    // Microseconds of today, which need more than 14 digits.
    let start = 1_790_000_000_123_457_u64;
    let cases = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&(steps(), any::<bool>()), |(steps, goes_back)| {
        cases.set(cases.get() + 1);
        let key = format!("sp1:{{test:b:{}}}", cases.get());
        let mut connection = connection.borrow_mut();
        let (mut rule, mut now, mut windows) = (StoredBudget::default(), start, Vec::new());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take { after, limit, window, amount } => {
                    now += u64::from(after);
                    if goes_back && number % 7 == 6 {
                        now -= 3_000_000;
                    }
                    let from = Allowance { limit, window: Duration::from_micros(window) };
                    let expected = rule.take(now, from, amount);
                    let arguments = [now, limit, window, amount].map(|it| it.to_string());
                    let answer = eval(&mut connection, &TAKE, &key, &arguments);
                    prop_assert_eq!(taken(&answer), Ok(expected));
                    if let Taken::Granted { window, .. } = expected {
                        windows.insert(0, window);
                    }
                }
                Step::Correct { of, change } => {
                    let window = windows.get(of).copied().unwrap_or(1);
                    rule.correct(window, change);
                    let arguments = [window.to_string(), change.to_string()];
                    eval(&mut connection, &CORRECT, &key, &arguments);
                }
            }
        }
        Ok(())
    });
    result.unwrap();
    assert!(cases.get() >= 500);
}

#[test]
fn the_script_of_a_rate_gives_the_answers_of_the_rule() {
    let Some(server) = Server::start(&[]) else { return };
    let client = redis::Client::open(server.url()).unwrap();
    let connection = RefCell::new(client.get_connection().unwrap());
    let start = 1_790_000_000_123_457_u64;
    let cases = Cell::new(0);
    let step = (0_u32..3_000_000, 0_u32..60);
    let rate = prop_oneof![0.001_f64..2.0, 1.0_f64..1_000.0, Just(3.0)];
    let steps = (rate, prop::collection::vec(step, 1..40), any::<bool>());
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() };
    let result = TestRunner::new(config).run(&steps, |(per_second, steps, goes_back)| {
        cases.set(cases.get() + 1);
        let key = format!("sp1:{{test:r:{}}}", cases.get());
        let mut connection = connection.borrow_mut();
        let (mut rule, mut now) = (StoredRate::default(), start);
        for (number, (after, most)) in steps.into_iter().enumerate() {
            now += u64::from(after) / if number % 3 == 0 { 1 } else { 100 };
            if goes_back && number % 7 == 6 {
                now -= 5_000_000;
            }
            let expected = rule.lease(now as f64, RateLimit { per_second }, most);
            let arguments = [now.to_string(), per_second.to_string(), most.to_string()];
            let answer = eval(&mut connection, &LEASE, &key, &arguments);
            prop_assert_eq!(leased(&answer), Ok(expected));
        }
        Ok(())
    });
    result.unwrap();
    assert!(cases.get() >= 300);
}

#[test]
fn the_scripts_of_ids_give_the_answers_of_the_rule() {
    let Some(server) = Server::start(&[]) else { return };
    let client = redis::Client::open(server.url()).unwrap();
    let connection = RefCell::new(client.get_connection().unwrap());
    let start = 1_790_000_000_123_457_u64;
    let cases = Cell::new(0);
    let secret = IdSecret::new("a secret that is long enough").unwrap();
    let age = Duration::from_secs(400);
    // After so many microseconds: some ids by number, with resources and owners, or only asked for.
    let id = (0_u8..12, 0_u64..3, prop::option::of(0_u64..3));
    let step = (any::<bool>(), 0_u64..250_000_000, prop::collection::vec(id, 0..6));
    let steps = prop::collection::vec(step, 1..30);
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() };
    let result = TestRunner::new(config).run(&steps, |steps| {
        cases.set(cases.get() + 1);
        let fleet = format!("test-{}", cases.get());
        let key = Prefix { fleet: &fleet, age }.key(None);
        let mut connection = connection.borrow_mut();
        let (mut rule, mut now) = (StoredIds::default(), start);
        for (remembers, after, ids) in steps {
            now += after;
            let with_time = |mut arguments: Vec<Vec<u8>>| {
                arguments[0] = now.to_string().into_bytes();
                arguments
            };
            let name = |id: u8| Box::<[u8]>::from(&[b'x', id][..]);
            if remembers {
                let holder = |(id, resource, owner)| (name(id), IdHolder { resource, owner });
                let ids: Vec<_> = ids.into_iter().map(holder).collect();
                let arguments = with_time(to_remember(&secret, age, &ids));
                let answer = eval(&mut connection, &REMEMBER, &key, &arguments);
                let kept = read(&secret, ids.iter().map(|(id, _)| &**id), &answer);
                let expected = ids.iter().map(|(id, is)| rule.remember(now, age, id.clone(), *is));
                let expected: Vec<_> = expected.map(Some).collect();
                prop_assert_eq!(kept, Ok(expected));
            } else {
                let ids: Vec<_> = ids.into_iter().map(|(id, ..)| name(id)).collect();
                let names = ids.iter().map(|id| &**id);
                let arguments = with_time(to_recall(&secret, age, names));
                let answer = eval(&mut connection, &RECALL, &key, &arguments);
                let expected = ids.iter().map(|id| rule.recall(now, age, id)).collect();
                prop_assert_eq!(read(&secret, ids.iter().map(|id| &**id), &answer), Ok(expected));
            }
        }
        Ok(())
    });
    result.unwrap();
    assert!(cases.get() >= 300);
}

#[test]
fn stored_ids_expire_with_their_generation_and_take_few_bytes() {
    let Some(server) = Server::start(&[]) else { return };
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let secret = IdSecret::new("a secret that is long enough").unwrap();
    let age = Duration::from_secs(7 * 24 * 3_600);
    let key = Prefix { fleet: "prod", age }.key(None);
    let memory = |connection: &mut Connection| -> f64 {
        let text: String = redis::cmd("INFO").arg("memory").query(connection).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.parse().unwrap()
    };
    let before = memory(&mut connection);
    let number = 200_000;
    for first in (0..number).step_by(500) {
        let id = |id: i32| {
            let is = IdHolder { resource: 7, owner: Some(9) };
            (format!("resp_{id:032}").into_bytes().into(), is)
        };
        let ids: Vec<(Box<[u8]>, _)> = (first..first + 500).map(id).collect();
        eval(&mut connection, &REMEMBER, &key, &to_remember(&secret, age, &ids));
    }
    let each = (memory(&mut connection) - before) / f64::from(number);
    // Longer hashes take half of it.
    assert!(each < 110.0, "{each:.0} bytes an id, in hashes of three");
    let some: String = redis::cmd("RANDOMKEY").query(&mut connection).unwrap();
    assert!(some.starts_with("sp1:{prod:i}:604800:"), "{some}");
    let left: i64 = redis::cmd("PTTL").arg(&some).query(&mut connection).unwrap();
    let days = left as f64 / 86_400e3;
    assert!((7.0..=7.0 * 1.25).contains(&days), "{days} days");
}

#[test]
fn an_answer_that_is_no_answer_is_none() {
    for value in [Value::Nil, Value::Int(3), Value::Array(vec![]), Value::Okay] {
        assert_eq!(taken(&value), Err(Unreachable));
        assert_eq!(leased(&value), Err(Unreachable));
    }
    let ints = |ints: [i64; 4]| Value::Array(ints.map(Value::Int).to_vec());
    assert_eq!(taken(&ints([1, -5, 2, 3])), Err(Unreachable));
    let far = Taken::Spent { opens_in: MAX_WINDOW };
    assert_eq!(taken(&ints([0, 0, 0, i64::MAX])), Ok(far), "it cannot block for centuries");
    let membership = Membership::default();
    for (answer, replicas) in [(Value::Int(-3), 1), (Value::Int(3), 3), (Value::Nil, 3)] {
        membership.count(&answer);
        assert_eq!(membership.replicas.load(Ordering::Relaxed), replicas);
    }
}

#[test]
fn debug_shows_the_host_and_no_password() {
    let store = RedisStore::new("rediss://someone:canary-1@contoso.internal:6380").unwrap();
    let store = store.user("spillover").password("canary-2");
    let shown = format!("{store:?}");
    assert!(shown.contains("contoso.internal:6380") && !shown.contains("canary"), "{shown}");
    for url in ["", "contoso:6379", "http://canary@contoso", "redis://:canary@:x"] {
        let error = RedisStore::new(url).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
