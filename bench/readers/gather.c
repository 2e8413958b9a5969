/*
 * A TCP reader that gathers, with a known burst tolerance: what the article's fix does, by the clock.
 *
 *   gather HOST PORT BYTES_PER_SECOND CHUNK COPY_BYTES_PER_SECOND
 *
 * It reads chunks until EAGAIN, and appends each to what it has gathered since the last EAGAIN. A byte
 * takes 1 / BYTES_PER_SECOND, and with each CHUNK all that was gathered is copied, at
 * COPY_BYTES_PER_SECOND. So n bytes without an EAGAIN take
 *
 *     t(n) = n / L + n^2 / (2 c M)        L: BYTES_PER_SECOND, c: CHUNK, M: COPY_BYTES_PER_SECOND
 *
 * At a base rate r, it meets EAGAIN after a burst B if some n has n >= B + r t(n), which is so up to
 *
 *     B = c M (1 - r / L)^2 / (2 r)
 *
 * The work is done by spinning, because a reader that sleeps would be early or late for an EAGAIN. Time
 * that other programs took is made up for. Ends at EOF (exit status 0), or after an error (1).
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CHUNK (1 << 20)
/* It makes up for no more than this: seconds. */
#define CREDIT 0.05

static char buffer[MAX_CHUNK];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double parse_number(const char *name, const char *text, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (end != text && *end == '\0' && value >= least && value <= most) return value;
    fprintf(stderr, "gather: %s must be a number from %.0f to %.0f, got '%s'\n", name, least, most, text);
    exit(2);
}

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {0}, *list;
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(host, port, &hints, &list);
    if (code != 0) {
        fprintf(stderr, "gather: cannot resolve %s port %s: %s\n", host, port, gai_strerror(code));
        exit(1);
    }
    int fd = socket(list->ai_family, list->ai_socktype, list->ai_protocol);
    if (fd < 0 || connect(fd, list->ai_addr, list->ai_addrlen) < 0) {
        fprintf(stderr, "gather: cannot connect to %s port %s: %s\n", host, port, strerror(errno));
        exit(1);
    }
    freeaddrinfo(list);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fputs("usage: gather HOST PORT BYTES_PER_SECOND CHUNK COPY_BYTES_PER_SECOND\n", stderr);
        return 2;
    }
    const double limit = parse_number("BYTES_PER_SECOND", argv[3], 1, 1e12);
    const double chunk = parse_number("CHUNK", argv[4], 1, MAX_CHUNK);
    const double copying = parse_number("COPY_BYTES_PER_SECOND", argv[5], 1, 1e15);

    memset(buffer, 1, sizeof buffer); /* allocates its pages before the clock starts */
    int fd = connect_to(argv[1], argv[2]);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    double total = 0, gathered = 0, due = now();
    while (1) {
        ssize_t n = recv(fd, buffer, (size_t)chunk, 0);
        if (n > 0) {
            double bytes = (double)n;
            due += bytes / limit + (gathered + bytes / 2) * (bytes / chunk) / copying;
            gathered += bytes;
            total += bytes;
            while (now() < due) continue;
        } else if (n == 0) {
            fprintf(stderr, "gather: EOF after %.0f bytes\n", total);
            return 0;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd p = {fd, POLLIN, 0};
            gathered = 0;
            poll(&p, 1, -1);
            double earliest = now();
            if (due < earliest) due = earliest;
        } else if (errno != EINTR) {
            fprintf(stderr, "gather: error %d (%s) after %.0f bytes\n", errno, strerror(errno), total);
            return 1;
        }
        if (due < now() - CREDIT) due = now() - CREDIT;
    }
}
