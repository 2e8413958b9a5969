/*
 * The article's two readers, in C.
 *
 *   reader naive HOST PORT    reads 10 bytes, replies "Hi i got the data", and repeats
 *   reader drain HOST PORT    reads until EAGAIN, then waits for more; does not reply
 *
 * At the end it prints one line on stderr. Exit status: 0 at EOF, 1 after an error.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned long long bytes;

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {0}, *list;
    hints.ai_socktype = SOCK_STREAM;
    int code = getaddrinfo(host, port, &hints, &list);
    if (code != 0) {
        fprintf(stderr, "reader: cannot resolve %s port %s: %s\n", host, port, gai_strerror(code));
        return -1;
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
    if (fd < 0)
        fprintf(stderr, "reader: cannot connect to %s port %s: %s\n", host, port, strerror(error));
    return fd;
}

/* Both functions return 0 at EOF and -1 after an error. */

static int read_naively(int fd) {
    static const char reply[] = "Hi i got the data";
    char data[10];
    ssize_t n;
    while ((n = recv(fd, data, sizeof data, 0)) > 0) {
        bytes += (unsigned long long)n;
        if (send(fd, reply, sizeof reply - 1, 0) < 0) return -1;
    }
    return (int)n;
}

static int read_draining(int fd) {
    static char data[65536];
    struct pollfd p = {fd, POLLIN, 0};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    for (;;) {
        ssize_t n = recv(fd, data, sizeof data, 0);
        if (n > 0) bytes += (unsigned long long)n;
        else if (n == 0) return 0;
        else if (errno != EAGAIN && errno != EWOULDBLOCK) return -1;
        else if (poll(&p, 1, -1) < 0) return -1;
    }
}

int main(int argc, char **argv) {
    int naive = argc == 4 && strcmp(argv[1], "naive") == 0;
    if (!naive && !(argc == 4 && strcmp(argv[1], "drain") == 0)) {
        fprintf(stderr, "usage: reader naive|drain HOST PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int fd = connect_to(argv[2], argv[3]);
    if (fd < 0) return 1;
    int failed = naive ? read_naively(fd) : read_draining(fd);
    if (failed)
        fprintf(stderr, "reader: error %d (%s) after %llu bytes\n", errno, strerror(errno), bytes);
    else fprintf(stderr, "reader: eof after %llu bytes\n", bytes);
    return failed ? 1 : 0;
}
