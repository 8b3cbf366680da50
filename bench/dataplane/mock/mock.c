/* A chat upstream that costs next to nothing: one thread, epoll, every answer prepared at start.
 *
 *   mock PORT EVENTS INTERVAL_US
 *
 * A body with "stream":true gets EVENTS server-sent events, one every INTERVAL_US microseconds, then a
 * finish, a usage block and [DONE]; any other POST gets one completion, a GET the list of models. It
 * serves benches on the loopback address only: it checks nothing but Content-Length, and an oversized
 * request closes the connection.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 4096, REQUEST_MAX = 65536, READY_MAX = 256, ANSWER_MAX = 4096 };

struct connection {
    int fd;
    size_t received;
    const char *out; /* what is left to write; points into a prepared answer, never copied */
    size_t out_left;
    int events_left; /* events still to send, the closing one included; 0 when no stream is open */
    uint64_t due_us;
    struct connection *next_due;
    char request[REQUEST_MAX + 1];
};

static struct connection *connections[CONNECTIONS_MAX];
/* Every stream waits the same interval, so a queue in order of arrival is also in order of time. */
static struct connection *due_first, *due_last;
static char models[ANSWER_MAX], whole[ANSWER_MAX], stream_head[ANSWER_MAX], stream_event[ANSWER_MAX], stream_end[ANSWER_MAX];
static size_t models_size, whole_size, head_size, event_size, end_size;
static int epoll_fd, events_per_stream;
static uint64_t interval_us;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static size_t append_event(char *target, size_t used, const char *json) {
    size_t length = strlen(json) + 8; /* "data: " and the blank line */
    return used + (size_t)sprintf(target + used, "%zx\r\ndata: %s\n\n\r\n", length, json);
}

static size_t json_answer(char *target, const char *body) {
    return (size_t)snprintf(target, ANSWER_MAX,
                            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\n\r\n%s",
                            strlen(body), body);
}

static void prepare_answers(void) {
    char body[ANSWER_MAX / 2], usage[256];
    const char *chunk =
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"bench-model\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,"
        "\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}],\"usage\":%s}";
    snprintf(usage, sizeof usage,
             "{\"prompt_tokens\":42,\"completion_tokens\":%d,\"total_tokens\":%d,"
             "\"prompt_tokens_details\":{\"cached_tokens\":0},"
             "\"completion_tokens_details\":{\"reasoning_tokens\":0}}",
             events_per_stream, events_per_stream + 42);
    snprintf(body, sizeof body,
             "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,"
             "\"model\":\"bench-model\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,"
             "\"message\":{\"role\":\"assistant\",\"content\":\"The harbour is quiet at dawn, and the first "
             "boats leave before the fog has lifted.\",\"refusal\":null},\"logprobs\":null,"
             "\"finish_reason\":\"stop\"}],\"usage\":%s}",
             usage);
    whole_size = json_answer(whole, body);
    models_size = json_answer(models, "{\"object\":\"list\",\"data\":[{\"id\":\"bench-model\","
                                      "\"object\":\"model\",\"max_model_len\":32768}]}");
    head_size = (size_t)sprintf(stream_head, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                             "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
    snprintf(body, sizeof body, chunk, "\"content\":\" harbour\"", "null", "null");
    event_size = append_event(stream_event, 0, body);
    snprintf(body, sizeof body, chunk, "", "\"stop\"", "null");
    end_size = append_event(stream_end, 0, body);
    snprintf(body, sizeof body,
             "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
             "\"model\":\"bench-model\",\"choices\":[],\"usage\":%s}",
             usage);
    end_size = append_event(stream_end, end_size, body);
    end_size = append_event(stream_end, end_size, "[DONE]");
    end_size += (size_t)sprintf(stream_end + end_size, "0\r\n\r\n");
}

static void forget(struct connection *c) {
    struct connection **link = &due_first, *before = NULL;
    for (; *link; before = *link, link = &(*link)->next_due) {
        if (*link != c) continue;
        *link = c->next_due;
        if (due_last == c) due_last = before;
        break;
    }
    close(c->fd); /* leaves the epoll set by itself */
    connections[c->fd] = NULL;
    free(c);
}

static int flush_out(struct connection *c) {
    while (c->out_left) {
        ssize_t sent = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) return 0;
        c->out += sent;
        c->out_left -= (size_t)sent;
    }
    struct epoll_event interest = {.events = EPOLLIN, .data.fd = c->fd};
    if (c->out_left) {
        interest.events |= EPOLLOUT;
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &interest);
    }
    return 1;
}

static void wait_for_turn(struct connection *c, uint64_t now) {
    c->due_us = now + interval_us;
    c->next_due = NULL;
    if (due_last) due_last->next_due = c;
    else due_first = c;
    due_last = c;
}

static int answer(struct connection *c) {
    if (!strncmp(c->request, "GET ", 4)) {
        c->out = models, c->out_left = models_size;
        return flush_out(c);
    }
    char *body = strstr(c->request, "\r\n\r\n") + 4;
    if (!strstr(body, "\"stream\":true") && !strstr(body, "\"stream\": true")) {
        c->out = whole, c->out_left = whole_size;
        return flush_out(c);
    }
    c->out = stream_head, c->out_left = head_size;
    c->events_left = events_per_stream + 1;
    wait_for_turn(c, now_us());
    return flush_out(c);
}

/* Returns 0 when the connection must be closed. */
static int read_request(struct connection *c) {
    ssize_t got = recv(c->fd, c->request + c->received, REQUEST_MAX - c->received, 0);
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return 0;
    c->received += (size_t)got;
    c->request[c->received] = '\0';
    char *end = strstr(c->request, "\r\n\r\n");
    if (!end) return c->received < REQUEST_MAX;
    char *length = strcasestr(c->request, "\r\ncontent-length:");
    size_t size = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    size_t expected = (size_t)(end + 4 - c->request) + size;
    if (expected > REQUEST_MAX) return 0;
    if (c->received < expected) return 1;
    c->received = 0;
    return answer(c);
}

static void send_due_events(void) {
    uint64_t now = now_us();
    while (due_first && due_first->due_us <= now) {
        struct connection *c = due_first;
        due_first = c->next_due;
        if (!due_first) due_last = NULL;
        if (c->out_left == 0) { /* a reader that lags gets its event at a later turn */
            int last = --c->events_left == 0;
            c->out = last ? stream_end : stream_event;
            c->out_left = last ? end_size : event_size;
            if (!flush_out(c)) {
                forget(c);
                continue;
            }
        }
        if (c->events_left) wait_for_turn(c, now);
    }
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        if (fd >= CONNECTIONS_MAX) {
            close(fd);
            continue;
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connections[fd] = calloc(1, sizeof(struct connection));
        connections[fd]->fd = fd;
        struct epoll_event interest = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &interest);
    }
}

static int timeout_ms(void) {
    if (!due_first) return -1;
    uint64_t now = now_us();
    return due_first->due_us <= now ? 0 : (int)((due_first->due_us - now + 999) / 1000);
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("mock");
        exit(1);
    }
    return listener;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: mock PORT EVENTS INTERVAL_US\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    events_per_stream = atoi(argv[2]);
    interval_us = strtoull(argv[3], NULL, 10);
    prepare_answers();
    epoll_fd = epoll_create1(0);
    int listener = listen_on(atoi(argv[1]));
    struct epoll_event interest = {.events = EPOLLIN, .data.fd = listener}, ready[READY_MAX];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &interest);
    for (;;) {
        int count = epoll_wait(epoll_fd, ready, READY_MAX, timeout_ms());
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd == listener) {
                accept_all(listener);
                continue;
            }
            struct connection *c = connections[ready[i].data.fd];
            int open = !(ready[i].events & (EPOLLERR | EPOLLHUP));
            if (open && ready[i].events & EPOLLOUT) {
                struct epoll_event back = {.events = EPOLLIN, .data.fd = c->fd};
                epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &back);
                open = flush_out(c);
            }
            if (open && ready[i].events & EPOLLIN) open = read_request(c);
            if (!open) forget(c);
        }
        send_due_events();
    }
}
