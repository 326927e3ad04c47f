//! The constants of the shared core. Durations are in microseconds, but those in `_S` in seconds.
//!
//! Those of the gate of one process are in `gate/core`, with their reasons; a test compares them. The
//! loader of `gate.lua` writes these values for their names.

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: f64 = $value;)*

        /// All of them, by name.
        #[cfg(any(test, feature = "redis"))]
        pub(crate) const CONSTANTS: &[(&str, f64)] = &[$((stringify!($name), $name)),*];
    };
}

constants! {
    /// Long enough ago to have no effect; stands for an instant that is not known.
    NEVER = -1e15;
    SECOND = 1e6;
    MILLISECOND = 1e3;
    IDLE_AFTER = 1e6;
    FORGOTTEN_AFTER = 1e7;
    MIN_NEWS = 250e3;
    UNKNOWN_FILL = 50e3;
    GUESS_FILLS = 0.5;
    MAX_GUESS_DOUBLINGS = 16.0;
    MAX_GUESS = 490e3;
    UTILIZATION_AGE_DIVISOR = 16.0;
    MAX_MODELLED_SPARE = 60e6;
    MEAN_WEIGHT = 0.05;
    SUM_DECAY = 0.98;
    MIN_SPREAD = 1e-4;
    MIN_RELATIVE_COST = 0.01;
    DURATION_WEIGHT = 0.05;
    MIN_REFUSALS = 3.0;
    MIN_DROUGHT = 1e6;
    MIN_DROUGHT_FILLS = 4.0;
    ARRIVAL_WINDOW = 1e7;
    MAX_URGENT_SHARE = 0.9;
    SUM_DECAY_PER_REFUSAL = 0.98;
    MIN_SHARE_SUM = 0.02;
    UTILIZATION_ROUNDING = 0.001;
    MAX_TRUSTED_DEVIATION = 0.25;
    DEVIATION_WEIGHT = 0.2;
    RATE_SAMPLE_WINDOW_S = 10.0;
    MIN_INTERVAL_S = 0.5;
    MIN_DRAIN_S = 0.05;
    SETTLING = 3e6;
    MIN_REPEATED = 20e3;
    REPEATS_WEIGHT = 0.2;
    MIN_CONSTANT_SHARE = 0.5;
    DOUBT_FACTOR = 3.0;
    MIN_DOUBTED = 300e3;
    MAX_REFUTED_RATIO = 0.2;
    CREDIBLE_FACTOR = 1.5;
    LONGEST_HINT_DECAY = 0.95;
    MAX_DRIFT = 0.25;
    MAX_BLUR = 200e3;
    MIN_CONFIRMATION = 150e3;
    MIN_REFUTED = 50e3;
    MAX_REMEMBERED = 20.0;
    FADE_FACTOR = 0.9;
    MIN_CHECK = 100e3;
    CHECK_AND_TRIP = 390e3;
    /// Differences of the network's delay within which an attempt would be too early: 4 ms halve the
    /// refusals of attempts that were expected to be admitted, and 8 ms save few more.
    DISPATCH_MARGIN = 5e3;
    BYPASS_AFTER = 900e3;
    EXPLAINED_SHARE = 0.1;
    EXPLAINED = 50e3;
    MAX_WINDOW = 1_000.0;
    MAX_UNMODELLED_WINDOW = 64.0;
    MAX_NETWORK = 100e3;
    NETWORK_GROWTH_DIVISOR = 16.0;
    USUAL_DIVISOR = 16.0;
    LONGEST_DECAY_DIVISOR = 512.0;
    RESERVE_MARGIN = 1.0625;
    SILENCE_TRIPS = 1.5;
    MIN_SILENCE = 20e3;
    TARGET = 100e3;
    TARGET_SHARE = 0.025;
    INTERVAL_WAITS = 15.0;
    CUT_FACTOR = 0.5;
    CUT_INTERVAL = 3e6;
    MIN_SHARE = 0.02;
    GROWTH_PER_INTERVAL = 1.25;
    /// The natural logarithm of 1.15.
    LN_IDLE_GROWTH_PER_S = 0.139_761_942_375_158_6;
    MAX_IDLE_S = 1_000.0;
    MIN_SIZE_SHARE = 0.05;
    WAIT_SAFETY_FACTOR = 1.05;
    GIVE_UP_SHARE = 0.9;
    MAX_QUEUE_WALKED = 64.0;

    // What the gate of one process does not have.

    /// The seconds of drain for which a rate counts that came from a process: half of the window.
    SEED_TIME_S = 5.0;
    /// When a waiting request looks again: after this share of the time until it is due. Later, and
    /// a model that turns out too high is noticed late; sooner costs calls.
    APPOINTMENT_SHARE = 0.65;
    /// The shortest time until a request looks again.
    MIN_APPOINTMENT = 1e3;
    /// How long before it is due a request is permitted to go, in addition to a round trip to the
    /// store.
    GRANT_AHEAD = 5e3;
    /// A request that may go lets the head of the queue go first, if that looks again within this time:
    /// the PTU does not run empty in it.
    YIELD = 25e3;
    /// For how long after its appointment the head may be on its way.
    MAX_YIELD_LATENESS = 10e3;
    /// A request this late for its appointment is taken for lost with its process.
    MAX_LATENESS = 150e3;
    /// How often that is looked for.
    PURGE_INTERVAL = 20e3;
    /// Time in which attempts under way are forgotten, as those of a dead process must be.
    IN_FLIGHT_DECAY = 60e6;
    /// How often the fleet is notified that a PTU is busy, and for how much longer than it is closed.
    NEWS_INTERVAL = 250e3;
    BUSY_MARGIN = 1e6;
    /// Longer than any request waits.
    FOREVER = 1e15;
}
