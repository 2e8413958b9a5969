/*
 * Work by the clock: when a piece of work is done, at a speed that may vary around its mean.
 * Times and work are in seconds, since the first byte came.
 */
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

/* Work that was not done in a time without data, and may still be made up for. */
#define CREDIT 0.020
/* It sleeps once it is this far ahead. */
#define LUMP 0.001
/* The noise is constant for this long, or a tenth of its time constant. */
#define NOISE_STEP 0.005
/* Speed is never below this share of its mean, nor as far above it: so the mean stays what it is. */
#define SLOWEST 0.05
/* A signal that arrives just before a wait is noticed after this time at the latest. */
#define MAX_WAIT_MS 100
#define PI 3.14159265358979323846

/* How the speed varies. */
static enum { STEADY, NOISY, PAUSING } variation;
static double noise_sd, noise_tau; /* a share of the mean; seconds */
/* Ranges, drawn evenly. */
static double pause_range[2], work_range[2];

static volatile sig_atomic_t stop_signal;
static void on_stop(void); /* ends the program */

/* ---- the clock ---- */

static double clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static double epoch; /* of the monotonic clock, when the first byte came */
static double now(void) { return clock_now() - epoch; }

/* Sleeps until that time, if it is at least a lump away. */
static void sleep_until(double at) {
    double left;
    while (!stop_signal && (left = at - now()) >= LUMP) {
        if (left > MAX_WAIT_MS * 1e-3) left = MAX_WAIT_MS * 1e-3;
        struct timespec t = {(time_t)left, (long)((left - floor(left)) * 1e9)};
        nanosleep(&t, NULL);
    }
    if (stop_signal) on_stop();
}

static void forgo_idle_time(double *due) {
    double earliest = now() - CREDIT;
    if (*due < earliest) *due = earliest;
}

/* ---- chance: splitmix64 ---- */

static uint64_t random_state;
static double uniform(double low, double high) { /* low is never returned, so log() is defined */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return low + (high - low) * ((double)(z >> 11) + 1) * 0x1p-53;
}
static double gaussian(void) {
    double radius = sqrt(-2 * log(uniform(0, 1)));
    return radius * cos(2 * PI * uniform(0, 1));
}

/* ---- speed: a share of the mean rate, constant for one stretch after another ---- */

static double stretch_end = 0, speed = 1;

static void next_stretch(void) {
    static double noise, decay = -1, step;
    static int paused = 1;
    if (variation == NOISY) {
        if (decay < 0) {
            step = noise_tau / 10 < NOISE_STEP ? noise_tau / 10 : NOISE_STEP;
            decay = exp(-step / noise_tau);
            noise = gaussian();
        } else {
            noise = decay * noise + sqrt(1 - decay * decay) * gaussian();
        }
        speed = 1 + noise_sd * noise;
        if (speed < SLOWEST) speed = SLOWEST;
        if (speed > 2 - SLOWEST) speed = 2 - SLOWEST;
        stretch_end += step;
    } else if (variation == PAUSING) {
        double work = work_range[0] + work_range[1], pause = pause_range[0] + pause_range[1];
        paused = !paused;
        speed = paused ? 0 : (work + pause) / work;
        const double *range = paused ? pause_range : work_range;
        stretch_end += uniform(range[0], range[1]);
    } else {
        stretch_end = INFINITY;
    }
}

/* When work that begins then is done; `work`: the seconds that it takes at the mean rate. */
static double finish(double from, double work) {
    while (work > 0) {
        if (stretch_end <= from) {
            next_stretch();
            continue;
        }
        double room = (stretch_end - from) * speed;
        if (work <= room) return from + work / speed;
        work -= room;
        from = stretch_end;
    }
    return from;
}
