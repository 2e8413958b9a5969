/*
 * A TCP reader with a known service rate, for testing how accurate `limit` is.
 *
 *   paced HOST PORT BYTES_PER_SECOND [--pause MS --every MS] [--read SIZE] [--reply]
 *
 * It reads on an absolute schedule: n bytes keep it busy for n / rate seconds, counted from the
 * time at which the schedule let it start, not from the time at which it woke up. Sleeping too long
 * therefore costs nothing as long as data was waiting. Idle time (no data) is not credited beyond
 * CREDIT_NS or the time of one read, whichever is more, because a real reader cannot use past idle
 * time either. So it has never read more than rate * (now - first byte) plus that small burst, and
 * its limit is its rate. The unit of the schedule is one read: by default 1 ms of data, but 512
 * bytes to 64 KiB. When it sleeps too long, its window may close; a sender with a backlog then
 * needs some 0.1 ms to continue. Therefore it catches up at twice its rate, not as fast as it can,
 * and a wait for data takes WAIT_COST times its length from the time that it may catch up, not all
 * of that time.
 *
 * With --pause and --every it reads nothing in the first MS of each period of MS (from the first
 * byte on), and works faster by that share in the rest of the period. Its average rate is still
 * BYTES_PER_SECOND, which is its limit as long as the buffers can hold the data of a pause.
 *
 * --reply replies to every read with the article's "Hi i got the data", and waits where the reply
 * cannot be sent: with a server that never reads replies this becomes the article's deadlock.
 *
 * Ends at EOF, SIGTERM or SIGINT (exit status 0) or after an error (1), with one line on stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL
#define CREDIT_NS (2 * NS_PER_MS)
#define WAIT_COST 10
#define CATCH_UP 2
/* CATCH_UP only applies when it is later than this: at 1 GB/s a sleep is often late by one read. */
#define LATE_NS NS_PER_MS
#define MAX_READ (1 << 20)
/* A signal that arrives just before a wait is noticed after this time at the latest. */
#define MAX_WAIT_MS 100

static const char REPLY[] = "Hi i got the data";
static char buffer[MAX_READ];
static volatile sig_atomic_t stop_signal;

/* The cycle of pause and work, in ns since the first byte: each cycle starts with its pause. */
static int64_t cycle_ns = NS_PER_S;
static int64_t pause_ns = 0;

static void on_signal(int number) { stop_signal = number; }

static void fail(int status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("paced: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(status);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void sleep_until(int64_t at_ns) {
#ifdef __APPLE__ /* has no clock_nanosleep; the schedule is still absolute */
    int64_t left = at_ns - now_ns();
    if (left <= 0) return;
    struct timespec t = {left / NS_PER_S, left % NS_PER_S};
    nanosleep(&t, NULL);
#else
    struct timespec t = {at_ns / NS_PER_S, at_ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
#endif
}

/* Converts a time into the working time until then; time_of_work is the inverse. */
static int64_t work_at(int64_t at) {
    int64_t in_cycle = at % cycle_ns;
    return at / cycle_ns * (cycle_ns - pause_ns) + (in_cycle > pause_ns ? in_cycle - pause_ns : 0);
}

static int64_t time_of_work(int64_t work) {
    int64_t work_ns = cycle_ns - pause_ns;
    return work / work_ns * cycle_ns + pause_ns + work % work_ns;
}

/* Waits until the socket is ready or a signal arrives; an error shows in the next send or recv. */
static void wait_for(int fd, short events) {
    struct pollfd p = {fd, events, 0};
    while (!stop_signal && poll(&p, 1, MAX_WAIT_MS) <= 0) continue;
}

static double parse_number(const char *name, const char *text, double min, double max) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= min && value <= max))
        fail(2, "%s must be a number from %.0f to %.0f, got '%s'", name, min, max, text);
    return value;
}

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {0}, *list;
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(host, port, &hints, &list);
    if (code != 0) fail(1, "cannot resolve %s port %s: %s", host, port, gai_strerror(code));
    int fd = -1, error = 0;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        error = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0) fail(1, "cannot connect to %s port %s: %s", host, port, strerror(error));
    return fd;
}

int main(int argc, char **argv) {
    const char *positional[3];
    int positionals = 0, reply = 0;
    double pause_ms = 0, every_ms = 0, read_size = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--reply") == 0) reply = 1;
        else if (strcmp(argv[i], "--pause") == 0) pause_ms = parse_number(argv[i++], value, 1, 1e6);
        else if (strcmp(argv[i], "--every") == 0) every_ms = parse_number(argv[i++], value, 1, 1e6);
        else if (strcmp(argv[i], "--read") == 0)
            read_size = parse_number(argv[i++], value, 1, MAX_READ);
        else if (argv[i][0] != '-' && positionals < 3) positional[positionals++] = argv[i];
        else fail(2, "unknown argument '%s'", argv[i]);
    }
    if (positionals < 3)
        fail(2, "usage: paced HOST PORT BYTES_PER_SECOND "
                "[--pause MS --every MS] [--read SIZE] [--reply]");
    double rate = parse_number("BYTES_PER_SECOND", positional[2], 1, 1e12);
    if ((pause_ms > 0) != (every_ms > 0)) fail(2, "--pause and --every need each other");
    if (every_ms > 0 && pause_ms >= every_ms) fail(2, "--pause must be shorter than --every");
    if (read_size == 0) {
        read_size = rate / 1000;
        if (read_size > 65536) read_size = 65536;
        if (read_size < 512) read_size = 512;
    }
    if (every_ms > 0) {
        cycle_ns = (int64_t)(every_ms * NS_PER_MS);
        pause_ns = (int64_t)(pause_ms * NS_PER_MS);
    }
    const size_t max_read = (size_t)read_size;
    const double ns_per_byte = NS_PER_S / rate * (double)(cycle_ns - pause_ns) / (double)cycle_ns;
    double credit_ns = (double)max_read * ns_per_byte;
    if (credit_ns < CREDIT_NS) credit_ns = CREDIT_NS;

    struct sigaction action = {0}; /* no SA_RESTART: a signal interrupts a wait */
    action.sa_handler = on_signal;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
#ifdef __linux__
    /* In ns; the default of 50 µs is most of the time of a read at 1 GB/s. */
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
#endif

    memset(buffer, 1, max_read); /* allocates its pages before the clock starts */
    int fd = connect_to(positional[0], positional[1]);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    wait_for(fd, POLLIN);

    const int64_t first = now_ns();
    uint64_t bytes = 0;
    double due = 0;      /* the working time at which all bytes read so far are processed */
    double earliest = 0; /* the working time before which it would catch up too fast */
    int error = 0, eof = 0;
    while (!stop_signal) {
        int64_t now = now_ns() - first;
        int64_t start = time_of_work((int64_t)(due > earliest ? due : earliest));
        int64_t pause_end = now - now % cycle_ns + pause_ns;
        if (start < pause_end) start = pause_end; /* credit does not shorten a pause */
        if (now < start) {
            int64_t longest = now + MAX_WAIT_MS * NS_PER_MS;
            sleep_until(first + (start < longest ? start : longest));
            continue;
        }
        int64_t waits_from = -1; /* in working time */
        ssize_t n = recv(fd, buffer, max_read, 0);
        if (n > 0) {
            bytes += (uint64_t)n;
            due += (double)n * ns_per_byte;
            double late = (double)(work_at(now) - LATE_NS);
            earliest = (earliest > late ? earliest : late) + (double)n * ns_per_byte / CATCH_UP;
            for (size_t sent = 0; reply && sent < sizeof REPLY - 1 && !stop_signal;) {
                ssize_t m = send(fd, REPLY + sent, sizeof REPLY - 1 - sent, 0);
                if (m >= 0) {
                    sent += (size_t)m;
                } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                    if (waits_from < 0) waits_from = work_at(now_ns() - first);
                    wait_for(fd, POLLOUT);
                } else if (errno != EINTR) {
                    error = errno;
                    break;
                }
            }
        } else if (n == 0) {
            eof = 1;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            waits_from = work_at(now_ns() - first);
            wait_for(fd, POLLIN);
        } else if (errno != EINTR) {
            error = errno;
        }
        if (eof || error) break;
        if (waits_from >= 0) {
            int64_t waits_to = work_at(now_ns() - first);
            double owed = (double)waits_from - due - WAIT_COST * (double)(waits_to - waits_from);
            if (owed < credit_ns) owed = credit_ns;
            if (due < (double)waits_to - owed) due = (double)waits_to - owed;
        }
    }

    double seconds = (double)(now_ns() - first) / NS_PER_S;
    if (bytes == 0) seconds = 0;
    fprintf(stderr, "paced: %" PRIu64 " bytes in %.6f s, %.0f bytes/s, ended by ", bytes, seconds,
            seconds > 0 ? (double)bytes / seconds : 0.0);
    if (error) fprintf(stderr, "error %d (%s)\n", error, strerror(error));
    else fprintf(stderr, "%s\n", eof ? "eof" : stop_signal == SIGTERM ? "SIGTERM" : "SIGINT");
    return error ? 1 : 0;
}
