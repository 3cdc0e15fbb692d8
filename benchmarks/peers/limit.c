/* The limit in C: one epoll loop, blocking sockets, one send() a delivery, and no more parsing than it needs.
 *
 * limit PORT [joined]. With "joined" a WebSocket gets one send() for all that arrived for its channel in a turn of the
 * loop. It relies on what its one client does: a request comes whole in one read, connections are below MAX_FD,
 * payloads below 16 KiB, channels below CHANNELS.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FD 65536
#define BUFFER 65536
#define CHANNELS 4096
#define EVENTS 1024

/* File descriptors in any order; a member knows its place, so that it can be taken out. */
struct list {
    int count, room;
    int *members;
};

/* What arrived for a channel in this turn. */
struct batch {
    int size, room;
    char *frames;
};

static struct list subscribers[CHANNELS], streams[CHANNELS], polls[CHANNELS];
static struct batch batches[CHANNELS];
static int touched[EVENTS], touched_count;
static int joining;
static struct list *following[MAX_FD];
static int place[MAX_FD];

static char request[BUFFER + 1], frame[BUFFER], event[BUFFER], answer[BUFFER];
static int answer_size, answered_channel = -1;
static long messages[CHANNELS];

static void join(struct list *list, int fd)
{
    following[fd] = list;
    if (list->count == list->room) {
        list->room = list->room ? list->room * 2 : 4;
        list->members = realloc(list->members, list->room * sizeof *list->members);
        if (list->members == NULL)
            exit(1);
    }
    place[fd] = list->count;
    list->members[list->count++] = fd;
}

static void leave(int fd)
{
    struct list *list = following[fd];
    if (list == NULL)
        return;
    int last = list->members[--list->count];
    list->members[place[fd]] = last;
    place[last] = place[fd];
    following[fd] = NULL;
}

static void transmit(int fd, const char *data, int size)
{
    /* The socket blocks, so that all of it goes; a peer that is gone is seen by epoll. */
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    (void)sent;
}

static uint32_t rotate(uint32_t value, int bits)
{
    return value << bits | value >> (32 - bits);
}

/* SHA-1 (RFC 3174) of 60 bytes: a WebSocket key of 24 and the GUID of 36 make two blocks, always. */
static void sha1_of_60(const char *data, unsigned char digest[20])
{
    unsigned char padded[128] = {0};
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    memcpy(padded, data, 60);
    padded[60] = 0x80;
    padded[126] = 480 >> 8;
    padded[127] = 480 & 255;
    for (int block = 0; block < 2; block++) {
        uint32_t words[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
        for (int i = 0; i < 16; i++) {
            memcpy(&words[i], padded + block * 64 + i * 4, 4);
            words[i] = ntohl(words[i]);
        }
        for (int i = 16; i < 80; i++)
            words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t mixed, constant;
            if (i < 20)
                mixed = (b & c) | (~b & d), constant = 0x5A827999;
            else if (i < 40)
                mixed = b ^ c ^ d, constant = 0x6ED9EBA1;
            else if (i < 60)
                mixed = (b & c) | (b & d) | (c & d), constant = 0x8F1BBCDC;
            else
                mixed = b ^ c ^ d, constant = 0xCA62C1D6;
            uint32_t next = rotate(a, 5) + mixed + e + constant + words[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
    }
    for (int i = 0; i < 5; i++) {
        uint32_t word = htonl(state[i]);
        memcpy(digest + i * 4, &word, 4);
    }
}

static void base64_of_20(const unsigned char digest[20], char text[29])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char padded[21] = {0};
    memcpy(padded, digest, 20);
    for (int i = 0; i < 7; i++) {
        const unsigned char *three = padded + i * 3;
        text[i * 4] = letters[three[0] >> 2];
        text[i * 4 + 1] = letters[(three[0] & 3) << 4 | three[1] >> 4];
        text[i * 4 + 2] = letters[(three[1] & 15) << 2 | three[2] >> 6];
        text[i * 4 + 3] = letters[three[2] & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

static void upgrade(int fd, int channel)
{
    char key[60], accept[29], response[256];
    unsigned char digest[20];
    const char *found = strstr(request, "Sec-WebSocket-Key: ");
    if (found == NULL)
        exit(1);
    memcpy(key, found + 19, 24);
    memcpy(key + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    sha1_of_60(key, digest);
    base64_of_20(digest, accept);
    int size = snprintf(response, sizeof response,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    transmit(fd, response, size);
    join(&subscribers[channel], fd);
}

/* Keep a frame until the end of the turn. */
static void append(int channel, const char *data, int size)
{
    struct batch *batch = &batches[channel];
    if (batch->size == 0)
        touched[touched_count++] = channel;
    if (batch->size + size > batch->room) {
        batch->room = (batch->size + size) * 2;
        batch->frames = realloc(batch->frames, batch->room);
        if (batch->frames == NULL)
            exit(1);
    }
    memcpy(batch->frames + batch->size, data, size);
    batch->size += size;
}

static void flush(void)
{
    while (touched_count) {
        int channel = touched[--touched_count];
        struct batch *batch = &batches[channel];
        struct list *list = &subscribers[channel];
        for (int i = 0; i < list->count; i++)
            transmit(list->members[i], batch->frames, batch->size);
        batch->size = 0;
    }
}

static void publish(const char *payload, int channel)
{
    int size = strlen(payload), head = 2;
    messages[channel]++;

    frame[0] = (char)0x81;
    if (size < 126) {
        frame[1] = size;
    } else {
        frame[1] = 126;
        frame[2] = size >> 8;
        frame[3] = size & 255;
        head = 4;
    }
    memcpy(frame + head, payload, size);
    struct list *list = &subscribers[channel];
    if (joining)
        append(channel, frame, head + size);
    else
        for (int i = 0; i < list->count; i++)
            transmit(list->members[i], frame, head + size);

    list = &streams[channel];
    if (list->count) {
        int event_size = snprintf(event, sizeof event, "data: %s\n\n", payload);
        for (int i = 0; i < list->count; i++)
            transmit(list->members[i], event, event_size);
    }

    /* Only one channel has polls at a time. */
    list = &polls[channel];
    if (list->count || answered_channel == channel) {
        static char body[BUFFER / 2];
        int body_size =
            snprintf(body, sizeof body, "{\"messages\":[\"%s\"],\"cursor\":\"%ld\"}", payload, messages[channel]);
        answered_channel = channel;
        answer_size = snprintf(answer, sizeof answer,
                               "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                               body_size, body);
        while (list->count) {
            int fd = list->members[list->count - 1];
            leave(fd);
            transmit(fd, answer, answer_size);
        }
    }
}

/* The channel is what follows the prefix. */
static int channel_at(int prefix)
{
    int channel = atoi(request + prefix);
    if (channel < 0 || channel >= CHANNELS)
        exit(1);
    return channel;
}

static void serve_request(int fd)
{
    static const char nothing[] =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    static const char stream[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n";
    if (following[fd] != NULL)
        return;
    if (memcmp(request, "POST /publish/", 14) == 0) {
        const char *body = strstr(request, "\r\n\r\n");
        if (body == NULL)
            exit(1);
        publish(body + 4, channel_at(14));
        transmit(fd, nothing, sizeof nothing - 1);
    } else if (memcmp(request, "GET /ws/", 8) == 0) {
        upgrade(fd, channel_at(8));
    } else if (memcmp(request, "GET /sse/", 9) == 0) {
        transmit(fd, stream, sizeof stream - 1);
        join(&streams[channel_at(9)], fd);
    } else if (memcmp(request, "GET /poll/", 10) == 0) {
        const char *cursor = strstr(request, "?cursor=");
        int channel = channel_at(10);
        if (cursor != NULL && atol(cursor + 8) < messages[channel])
            transmit(fd, answer, answer_size);
        else
            join(&polls[channel], fd);
    } else {
        transmit(fd, nothing, sizeof nothing - 1);
    }
}

int main(int argc, char **argv)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    int epoll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event change = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];

    if (argc != 2 && argc != 3)
        return 2;
    joining = argc == 3;
    address.sin_port = htons(atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("limit");
        return 1;
    }
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &change);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept(listener, NULL, NULL)) >= 0) {
                    if (fd >= MAX_FD) {
                        close(fd);
                        continue;
                    }
                    change.data.fd = fd;
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &change);
                }
                continue;
            }
            ssize_t size = recv(fd, request, BUFFER, 0);
            if (size > 0) {
                request[size] = 0;
                serve_request(fd);
            } else {
                leave(fd);
                close(fd);
            }
        }
        flush();
    }
}
