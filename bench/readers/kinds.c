/*
 * TCP readers of many kinds whose true rate is known by arithmetic.
 *
 *   kinds KIND HOST PORT BYTES_PER_SECOND [OPTIONS]
 *
 *   noise      its speed varies: AR(1), --sd PERCENT [10], time constant --tau SECONDS [0.3]
 *   pauses     it stops for --pause MS[:MS] [20:200], after each --every MS[:MS] [300:1700] of work
 *   batches    each --batch MS[:MS] [100:800] it takes all that is there, but no more than
 *              it can work off until it looks again, and works that off
 *   lognormal  the work of each message of --message BYTES [1000] is drawn; its standard deviation
 *              is --cv [1] times its mean
 *   queue      one thread takes --intake BYTES_PER_SECOND [8 times the rate], another one works off
 *              what lies in memory: at most --bound BYTES; without it, until --memory BYTES [1 GiB]
 *   lowat      SO_RCVLOWAT: it is woken for no less than --lowat BYTES [262144]
 *   drift      with each million messages of --message BYTES [13] a message costs --drift PERCENT
 *              [5] more of what the first one did
 *   exit       it exits after --exit BYTES with --status N [0]
 *
 * --listen 1: it listens at HOST PORT, and takes one connection. Without it, it connects there.
 *
 * --seed N draws the same every time [the clock's]. --mean SECONDS only prints the true mean rate,
 * and the mean that this seed gives to a reader with data in all of the first SECONDS.
 *
 * A range MIN:MAX is drawn evenly. BYTES_PER_SECOND is the mean in the long run: the time or the
 * work that noise, pauses and messages take has that mean by construction. It is kept by the clock
 * and costs no CPU: work of n bytes ends n / rate after the work before it, not after it woke up,
 * so sleeping too long costs nothing. Only of a time without data it makes up for CREDIT at most.
 * It sleeps when it is 1 ms ahead, so 1 ms of work is one lump.
 *
 * Ends at EOF once all is worked off, at SIGTERM or SIGINT (status 0), after an error (1), with one
 * line on stderr.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include "work.h"

#define MAX_READ (1 << 20)

enum kind { NOISE, PAUSES, BATCHES, LOGNORMAL, QUEUE, LOWAT, DRIFT, EXIT, KINDS };
static const char *const KIND_NAMES[KINDS] = {"noise", "pauses", "batches", "lognormal",
                                              "queue", "lowat",  "drift",   "exit"};

/* Options with a range have its two ends, the others the same number twice. */
static struct option {
    const char *name;
    double low, high;
} options[] = {{"sd", 10, 10},           {"tau", 0.3, 0.3},
               {"pause", 20, 200},       {"every", 300, 1700},
               {"batch", 100, 800},      {"message", 0, 0},
               {"cv", 1, 1},             {"intake", 0, 0},
               {"bound", 0, 0},          {"memory", 1 << 30, 1 << 30},
               {"lowat", 1 << 18, 1 << 18}, {"drift", 5, 5},
               {"exit", 0, 0},           {"status", 0, 0},
               {"listen", 0, 0},
               {"seed", 0, 0},           {"mean", 0, 0}};

static enum kind kind;
static double rate;
static char buffer[MAX_READ];

static void fail(int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("kinds: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(status);
}

static struct option *find(const char *name) {
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (strcmp(options[i].name, name) == 0) return &options[i];
    return NULL;
}
static double value_of(const char *name) { return find(name)->low; }

/* The work of the next n bytes, in seconds at the mean rate. */
static double work_of(size_t n) {
    static double bytes;
    double before = bytes, message = value_of("message");
    bytes += (double)n;
    if (kind == DRIFT)
        return (double)n / rate * (1 + value_of("drift") / 100 * (before + bytes) / 2 / message / 1e6);
    if (kind != LOGNORMAL) return (double)n / rate;
    double cv = value_of("cv"), variance = log(1 + cv * cv), work = 0;
    for (double k = floor(before / message); k < floor(bytes / message); k++)
        work += message / rate * exp(sqrt(variance) * gaussian() - variance / 2);
    return work;
}

/* Bytes of a read: a lump of work, but whole messages where each has work of its own. */
static size_t read_size(double bytes_per_second) {
    double size = bytes_per_second * LUMP;
    if (kind == LOGNORMAL && size < value_of("message")) size = value_of("message");
    if (size < 64) size = 64;
    return size > 65536 ? 65536 : (size_t)size;
}

/* ---- the socket ---- */

static uint64_t bytes_read, bytes_worked;

static void end(int status, const char *why) {
    double seconds = bytes_read > 0 ? now() : 0;
    fprintf(stderr, "kinds: %s: read %llu bytes, worked off %llu in %.6f s, %.0f bytes/s, ended by %s\n",
            KIND_NAMES[kind], (unsigned long long)bytes_read, (unsigned long long)bytes_worked,
            seconds, seconds > 0 ? (double)bytes_worked / seconds : 0.0, why);
    fflush(stderr);
    _exit(status); /* not exit: another thread may still be at work */
}

static void on_stop(void) { end(0, stop_signal == SIGTERM ? "SIGTERM" : "SIGINT"); }

/* One that waits wakes up so seldom that it looks as idle as one that is blocked in recv(2). */
#define IDLE_WAIT_MS 10000

/* Waits for data; false where it had to. A signal ends the wait. */
static int was_readable(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    if (poll(&p, 1, 0) > 0) return 1;
    while (!stop_signal && poll(&p, 1, IDLE_WAIT_MS) <= 0) continue;
    return 0;
}

/* Reads; 0 at the end of the stream. */
static size_t take(int fd, size_t most) {
    ssize_t n = -1;
    while (!stop_signal && (n = recv(fd, buffer, most, 0)) < 0 && errno == EINTR) continue;
    if (stop_signal) on_stop();
    if (n < 0) end(1, strerror(errno));
    bytes_read += (uint64_t)n;
    return (size_t)n;
}

static void work_while_reading(int fd) {
    size_t size = kind == LOWAT ? (size_t)value_of("lowat") : read_size(rate);
    double due = 0, last = kind == EXIT ? value_of("exit") : INFINITY;
    for (;;) {
        if (!was_readable(fd)) forgo_idle_time(&due);
        size_t n = take(fd, size);
        if (n == 0) end(0, "eof");
        due = finish(due, work_of(n));
        sleep_until(due);
        bytes_worked += n;
        if ((double)bytes_worked >= last) end((int)value_of("status"), "its own will");
    }
}

static void work_in_batches(int fd) {
    const struct option *batch = find("batch");
    for (double look = 0;;) {
        double next = look + uniform(batch->low, batch->high) / 1000;
        int there = 0, most = (int)(rate * (next - look));
        ioctl(fd, FIONREAD, &there);
        if (there > most) there = most;
        if (there == 0 && recv(fd, buffer, 1, MSG_PEEK | MSG_DONTWAIT) == 0) end(0, "eof");
        for (int left = there; left > 0;) left -= (int)take(fd, left < MAX_READ ? left : MAX_READ);
        double due = finish(look, work_of((size_t)there));
        look = due > next ? due : next;
        sleep_until(look);
        bytes_worked += (uint64_t)there;
        if (due < next) forgo_idle_time(&look);
    }
}

/* ---- a queue in memory between two threads ---- */

struct chunk {
    struct chunk *next;
    size_t size;
    char bytes[];
};
static struct chunk *oldest, **newest = &oldest;
static double queued;
static int no_more;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *work_off(void *unused) {
    double due = 0;
    pthread_mutex_lock(&lock);
    while (oldest != NULL || !no_more) {
        if (oldest == NULL) {
            pthread_cond_wait(&changed, &lock);
            forgo_idle_time(&due);
            continue;
        }
        struct chunk *chunk = oldest;
        if ((oldest = chunk->next) == NULL) newest = &oldest;
        pthread_mutex_unlock(&lock);
        due = finish(due, work_of(chunk->size));
        sleep_until(due);
        pthread_mutex_lock(&lock);
        /* What is worked on still counts: --bound is all that it has taken and not done. */
        queued -= (double)chunk->size;
        bytes_worked += chunk->size;
        free(chunk);
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
    end(0, "eof");
    return unused;
}

static void fill_queue(int fd) {
    double intake = value_of("intake"), bound = value_of("bound"), memory = value_of("memory");
    size_t size = read_size(intake);
    double due = 0;
    pthread_t worker;
    if (bound > 0 && bound < (double)size) fail(2, "--bound must be at least %zu here", size);
    if (pthread_create(&worker, NULL, work_off, NULL) != 0) fail(1, "cannot start a thread");
    for (;;) {
        if (!was_readable(fd)) forgo_idle_time(&due);
        size_t n = take(fd, size);
        struct chunk *chunk = malloc(sizeof *chunk + n);
        if (chunk == NULL || queued + (double)n > memory) end(1, "out of memory");
        chunk->next = NULL;
        chunk->size = n;
        memcpy(chunk->bytes, buffer, n);
        pthread_mutex_lock(&lock);
        if (n == 0) {
            no_more = 1;
        } else {
            *newest = chunk;
            newest = &chunk->next;
            queued += (double)n;
        }
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
        if (n == 0) break;
        due += (double)n / intake;
        sleep_until(due);
        pthread_mutex_lock(&lock);
        int was_full = 0;
        for (; bound > 0 && queued + (double)size > bound && !stop_signal; was_full = 1)
            pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
        if (was_full) forgo_idle_time(&due);
    }
    pthread_join(worker, NULL);
}

/* ---- start ---- */

static double parse_number(const char *name, const char *text, char **rest) {
    double value = strtod(text, rest);
    if (*rest == text || !(value >= 0 && value <= 1e15)) fail(2, "%s: no number: '%s'", name, text);
    return value;
}

static void parse_option(const char *word, const char *text) {
    struct option *o = strncmp(word, "--", 2) == 0 ? find(word + 2) : NULL;
    if (o == NULL) fail(2, "unknown argument '%s'", word);
    char *rest;
    o->low = o->high = parse_number(word, text, &rest);
    if (*rest == ':') o->high = parse_number(word, rest + 1, &rest);
    if (*rest != '\0' || o->high < o->low) fail(2, "%s: no number or MIN:MAX: '%s'", word, text);
}

/* The first connection that comes there; nothing listens any more then. Closes `fd`. */
static int accept_on(int fd, const struct addrinfo *a) {
    int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    int taken = -1;
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 1) == 0) taken = accept(fd, NULL, NULL);
    int error = errno;
    close(fd);
    errno = error;
    return taken;
}

/* Connects, or listens for one connection. */
static int open_connection(const char *host, const char *port) {
    int listens = value_of("listen") > 0;
    struct addrinfo hints = {0}, *list;
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(host, port, &hints, &list);
    if (code != 0) fail(1, "cannot resolve %s port %s: %s", host, port, gai_strerror(code));
    int fd = -1, error = 0;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (kind == BATCHES) {
            /* The socket must hold what comes from one look to the next one, or the rate is lower. */
            int most = (int)(2 * rate * find("batch")->high / 1000) + 65536;
            socklen_t size = sizeof most;
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &most, size);
            int given = 0;
            getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &given, &size);
            if (given < most) fail(2, "this rate needs net.core.rmem_max of %d", most);
        }
        if (fd >= 0 && listens) {
            fd = accept_on(fd, a);
            if (fd >= 0) break;
        }
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        error = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0) fail(1, "cannot %s %s port %s: %s", listens ? "listen on" : "connect to", host, port, strerror(error));
    int lowat = (int)value_of("lowat");
    if (kind == LOWAT) setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof lowat);
    return fd;
}

static void on_signal(int number) { stop_signal = number; }

static void print_mean(double seconds) {
    double due = 0, bytes = 0;
    for (size_t n = read_size(rate); due < seconds; bytes += (double)n) due = finish(due, work_of(n));
    printf("true mean: %.0f bytes/s%s; in the first %g s with this seed: %.0f bytes/s\n", rate,
           kind == DRIFT ? " at first" : "", seconds, bytes / due);
}

int main(int argc, char **argv) {
    const char *positional[4] = {0};
    int count = 0;
    random_state = (uint64_t)(clock_now() * 1e9) ^ (uint64_t)getpid() << 32;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' && count < 4) positional[count++] = argv[i];
        else if (i + 1 < argc) parse_option(argv[i], argv[i + 1]), i++;
        else fail(2, "%s has no value", argv[i]);
    }
    if (count < 4) fail(2, "usage: kinds KIND HOST PORT BYTES_PER_SECOND [OPTIONS]");
    for (kind = 0; kind < KINDS && strcmp(positional[0], KIND_NAMES[kind]) != 0;) kind++;
    if (kind == KINDS) fail(2, "no such kind: '%s'", positional[0]);
    char *rest;
    rate = parse_number("BYTES_PER_SECOND", positional[3], &rest);
    if (*rest != '\0' || rate < 1) fail(2, "BYTES_PER_SECOND must be a number from 1");
    if (value_of("seed") > 0) random_state = (uint64_t)value_of("seed");
    if (value_of("message") < 1) find("message")->low = kind == LOGNORMAL ? 1000 : 13;
    if (value_of("intake") < 1) find("intake")->low = 8 * rate;
    if (value_of("tau") <= 0) fail(2, "--tau must be above 0");
    if (kind == EXIT && value_of("exit") < 1) fail(2, "exit needs --exit BYTES");
    if (value_of("lowat") < 1 || value_of("lowat") > MAX_READ) fail(2, "--lowat: 1 to %d", MAX_READ);
    variation = kind == NOISE ? NOISY : kind == PAUSES ? PAUSING : STEADY;
    noise_sd = value_of("sd") / 100;
    noise_tau = value_of("tau");
    pause_range[0] = find("pause")->low / 1000;
    pause_range[1] = find("pause")->high / 1000;
    work_range[0] = find("every")->low / 1000;
    work_range[1] = find("every")->high / 1000;
    if (value_of("mean") > 0) return print_mean(value_of("mean")), 0;

    struct sigaction action = {0}; /* no SA_RESTART: a signal interrupts a wait */
    action.sa_handler = on_signal;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
#ifdef __linux__
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* ns */
#endif
    memset(buffer, 1, sizeof buffer); /* allocates its pages before the clock starts */
    int fd = open_connection(positional[1], positional[2]);
    was_readable(fd);
    epoch = clock_now();
    if (kind == QUEUE) fill_queue(fd);
    else if (kind == BATCHES) work_in_batches(fd);
    else work_while_reading(fd);
    return 0;
}
