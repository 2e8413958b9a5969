/*
 * Many readers in one process, which all connect at once.
 *
 *   crowd HOST PORT READERS SECONDS [NAME]
 *
 * Opens READERS connections without waiting in between. With NAME, each sends the first line that
 * a server of named readers expects: NAMEn. It reads and drops what comes. Once each
 * reader has received its first bytes it prints one JSON line and exits:
 *
 *   connected   seconds from the first connect() until the kernel has connected them all
 *   served      seconds from the first connect() until each has received a byte
 *   slowest     the longest time from one reader's connect() to its first byte; seconds
 *
 * Exit status 1 when a connection fails or ends, and when that takes longer than SECONDS.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void usage(void) {
    fprintf(stderr, "usage: crowd HOST PORT READERS SECONDS [NAME]\n");
    exit(2);
}

struct reader {
    int fd;
    int connected;
    int served;
    double started;
};

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) usage();
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    long count = atol(argv[3]);
    double limit = atof(argv[4]);
    if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 || count < 1 || limit <= 0) usage();
    const char *name = argc > 5 ? argv[5] : NULL;
    signal(SIGPIPE, SIG_IGN);

    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) fail("epoll_create1");
    struct reader *readers = calloc((size_t)count, sizeof *readers);
    if (readers == NULL) fail("calloc");

    double start = now_s(), end = start + limit, connected_s = 0, slowest = 0;
    long opened = 0, connected = 0, served = 0;
    static char bytes[65536];
    struct epoll_event events[256];
    while (served < count) {
        /* A few at a time, so that replies are also handled while others still connect. */
        for (int i = 0; i < 64 && opened < count; i++) {
            struct reader *r = &readers[opened++];
            r->started = now_s();
            r->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            if (r->fd < 0) fail("socket");
            if (connect(r->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
                fail("connect");
            struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = r};
            if (epoll_ctl(epoll, EPOLL_CTL_ADD, r->fd, &event) != 0) fail("epoll_ctl");
        }
        int ready = epoll_wait(epoll, events, 256, opened < count ? 0 : 100);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct reader *r = events[i].data.ptr;
            if (!r->connected) {
                int error = 0;
                socklen_t length = sizeof error;
                getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &error, &length);
                if (error != 0) {
                    errno = error;
                    fail("connect");
                }
                if (!(events[i].events & EPOLLOUT)) continue;
                r->connected = 1;
                if (++connected == count) connected_s = now_s() - start;
                if (name != NULL) {
                    char line[300];
                    int size = snprintf(line, sizeof line, "%.50s%ld\n", name, r - readers);
                    if (send(r->fd, line, (size_t)size, 0) != size) fail("send");
                }
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = r};
                epoll_ctl(epoll, EPOLL_CTL_MOD, r->fd, &event);
            }
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
            ssize_t n = recv(r->fd, bytes, sizeof bytes, 0);
            if (n < 0 && errno == EAGAIN) continue;
            if (n < 0) fail("recv");
            if (n == 0) {
                fprintf(stderr, "crowd: the server closed a connection\n");
                return 1;
            }
            if (r->served) continue;
            r->served = 1;
            served++;
            double took = now_s() - r->started;
            if (took > slowest) slowest = took;
        }
        if (now_s() > end) {
            fprintf(stderr, "crowd: after %g s %ld of %ld readers were connected, %ld had received\n",
                    limit, connected, count, served);
            return 1;
        }
    }
    printf("{\"readers\":%ld,\"connected\":%.6f,\"served\":%.6f,\"slowest\":%.6f}\n", count,
           connected_s, now_s() - start, slowest);
    return 0;
}
