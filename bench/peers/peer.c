/*
 * The C reference that the speed benchmark measures the runtimes against.
 *
 *   peer flood PORT SECONDS WRITE_SIZE     accepts one reader and sends with a blocking socket
 *   peer messages PORT SECONDS SIZE        the article's server: one send() a message, non-blocking
 *   peer drain HOST PORT READ_SIZE         connects and reads until EOF
 *
 * A server listens on 127.0.0.1 and prints "listening PORT" first (PORT 0: any). All print one JSON
 * line at the end: bytes, seconds, the share of them that it was on a core ("busy"), and how many sends
 * that took bytes ("writes") or reads that gave some ("reads"). A run that breaks prints no figures, says so on stderr, and exits 1.
 *
 * The flood is the article's message end to end, whatever the size of a write. Its buffer holds real
 * bytes and the reader's is touched: untouched pages are all one page of zeros, which stays in the
 * cache and makes C look 10 to 20 % faster than it is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char MESSAGE[] = "Hello World!"; /* 13 bytes: the article sends its NUL too */
#define MESSAGE_SIZE (sizeof MESSAGE)
/* Reading the clock for each message would slow the server down by some per cent. */
#define SENDS_PER_CLOCK 64

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* On a core so far, in the program and in the kernel for it. */
static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void fail(const char *what) {
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void usage(void) {
    fprintf(stderr, "usage: peer flood PORT SECONDS WRITE_SIZE\n"
                    "       peer messages PORT SECONDS SIZE\n"
                    "       peer drain HOST PORT READ_SIZE\n");
    exit(2);
}

static double parse_number(const char *text, double min, double max) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= min && value <= max)) usage();
    return value;
}

/* A buffer of the message over and over, every page of it written. */
static char *message_buffer(size_t size) {
    char *buffer = malloc(size);
    if (buffer == NULL) fail("malloc");
    for (size_t i = 0; i < size; i++) buffer[i] = MESSAGE[i % MESSAGE_SIZE];
    return buffer;
}

static void report(unsigned long long bytes, double seconds, double cpu, const char *name,
                   unsigned long long calls) {
    double busy = seconds > 0 ? cpu / seconds : 0;
    printf("{\"bytes\":%llu,\"seconds\":%.6f,\"busy\":%.4f,\"%s\":%llu}\n", bytes, seconds,
           busy, name, calls);
}

static int accept_one(int port) {
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)port);
    if (bind(listener, (struct sockaddr *)&address, size) < 0) fail("bind");
    if (listen(listener, 1) < 0) fail("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &size) < 0) fail("getsockname");
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) fail("accept");
    close(listener);
    return fd;
}

static void flood(int port, double seconds, size_t write_size) {
    char *buffer = message_buffer(write_size + MESSAGE_SIZE);
    int fd = accept_one(port);
    /* A slow reader must not hold the last send much beyond the end. */
    struct timeval limit = {0, 20000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    unsigned long long bytes = 0, writes = 0;
    double start = now_s(), now = start, cpu = cpu_s();
    while (now - start < seconds) {
        ssize_t n = send(fd, buffer + bytes % MESSAGE_SIZE, write_size, 0);
        if (n > 0) {
            bytes += (unsigned long long)n;
            writes++;
        } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
            fail("send");
        }
        now = now_s();
    }
    close(fd);
    report(bytes, now - start, cpu_s() - cpu, "writes", writes);
}

static void messages(int port, double seconds, size_t size) {
    char *message = message_buffer(size);
    int fd = accept_one(port);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    struct pollfd p = {fd, POLLOUT, 0};
    unsigned long long bytes = 0, writes = 0;
    size_t sent = 0; /* of the message that the kernel took in part */
    double start = now_s(), now = start, cpu = cpu_s();
    while (now - start < seconds) {
        for (int i = 0; i < SENDS_PER_CLOCK; i++) {
            ssize_t n = send(fd, message + sent, size - sent, 0);
            if (n > 0) {
                bytes += (unsigned long long)n;
                writes++;
                sent += (size_t)n;
                if (sent == size) sent = 0;
            } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                poll(&p, 1, 10);
                break;
            } else {
                fail("send");
            }
        }
        now = now_s();
    }
    close(fd);
    report(bytes, now - start, cpu_s() - cpu, "writes", writes);
}

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {0}, *list;
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(host, port, &hints, &list);
    if (code != 0) {
        fprintf(stderr, "peer: cannot resolve %s port %s: %s\n", host, port, gai_strerror(code));
        exit(1);
    }
    int fd = -1, error = 0;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        error = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    errno = error;
    if (fd < 0) fail("connect");
    return fd;
}

static void drain(const char *host, const char *port, size_t read_size) {
    char *buffer = message_buffer(read_size);
    int fd = connect_to(host, port);
    unsigned long long bytes = 0, reads = 0;
    double start = 0, cpu = 0;
    ssize_t n;
    while ((n = recv(fd, buffer, read_size, 0)) > 0) {
        if (reads++ == 0) {
            start = now_s();
            cpu = cpu_s();
        }
        bytes += (unsigned long long)n;
    }
    if (n < 0) fail("recv");
    report(bytes, reads > 0 ? now_s() - start : 0, cpu_s() - cpu, "reads", reads);
}

int main(int argc, char **argv) {
    if (argc != 5) usage();
    signal(SIGPIPE, SIG_IGN);
    size_t size = (size_t)parse_number(argv[4], 1, 1 << 30);
    if (strcmp(argv[1], "drain") == 0) {
        drain(argv[2], argv[3], size);
        return 0;
    }
    int port = (int)parse_number(argv[2], 0, 65535);
    double seconds = parse_number(argv[3], 0.001, 1e6);
    if (strcmp(argv[1], "flood") == 0) flood(port, seconds, size);
    else if (strcmp(argv[1], "messages") == 0) messages(port, seconds, size);
    else usage();
    return 0;
}
