/* A program in C with BSD sockets, as for any Unix: an echo server and its clients in one thread, with getaddrinfo,
 * poll, non-blocking connections, half-close, datagrams and errors. Prints "ok". */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 8, SIZE = 300000 };

#define CHECK(what)                                                                                \
  do {                                                                                             \
    if (!(what)) {                                                                                 \
      fprintf(stderr, "line %d: %s: %s\n", __LINE__, #what, strerror(errno));                      \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

struct peer {
  int fd;
  size_t sent, received;
  char waiting[4096];
  size_t held;
};

static int bound(int kind, struct sockaddr_in *address) {
  int fd = socket(AF_INET, kind, 0), on = 1;
  socklen_t length = sizeof *address;
  CHECK(fd >= 0);
  CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 || kind != SOCK_STREAM);
  memset(address, 0, sizeof *address);
  address->sin_family = AF_INET;
  CHECK(inet_pton(AF_INET, "127.0.0.1", &address->sin_addr) == 1);
  CHECK(bind(fd, (struct sockaddr *)address, length) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)address, &length) == 0);
  CHECK(address->sin_port != 0);
  return fd;
}

static void nonblocking(int fd) {
  int on = 1;
  CHECK(ioctl(fd, FIONBIO, &on) == 0);
}

static char byte_at(size_t client, size_t at) { return (char)(at * 31 + client); }

/* Moves what can be moved of an echo; 0 at its end. */
static int echo(struct peer *server) {
  if (server->held == 0) {
    ssize_t got = recv(server->fd, server->waiting, sizeof server->waiting, 0);
    if (got == 0) {
      CHECK(close(server->fd) == 0);
      return 0;
    }
    CHECK(got > 0 || errno == EAGAIN);
    server->held = got > 0 ? (size_t)got : 0;
  }
  if (server->held > 0) {
    ssize_t put = send(server->fd, server->waiting, server->held, 0);
    CHECK(put >= 0 || errno == EAGAIN);
    if (put > 0) {
      memmove(server->waiting, server->waiting + put, server->held - (size_t)put);
      server->held -= (size_t)put;
    }
  }
  return 1;
}

static void call(struct peer *client, size_t number, short ready) {
  char data[8192];
  if (ready & POLLOUT && client->sent < SIZE) {
    size_t length = SIZE - client->sent < sizeof data ? SIZE - client->sent : sizeof data;
    for (size_t at = 0; at < length; at++) data[at] = byte_at(number, client->sent + at);
    ssize_t put = send(client->fd, data, length, 0);
    CHECK(put >= 0 || errno == EAGAIN);
    client->sent += put > 0 ? (size_t)put : 0;
    if (client->sent == SIZE) CHECK(shutdown(client->fd, SHUT_WR) == 0);
  }
  if (ready & (POLLIN | POLLHUP)) {
    ssize_t got = recv(client->fd, data, sizeof data, 0);
    CHECK(got >= 0 || errno == EAGAIN);
    for (ssize_t at = 0; at < got; at++) CHECK(data[at] == byte_at(number, client->received + (size_t)at));
    client->received += got > 0 ? (size_t)got : 0;
    if (got == 0) {
      CHECK(client->received == SIZE);
      CHECK(close(client->fd) == 0);
      client->fd = -1;
    }
  }
}

static void streams(void) {
  struct sockaddr_in address;
  int listener = bound(SOCK_STREAM, &address), open = CLIENTS, accepted = 0, error;
  static struct peer clients[CLIENTS], servers[CLIENTS];
  socklen_t length = sizeof error;
  CHECK(listen(listener, CLIENTS) == 0);
  nonblocking(listener);
  CHECK(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
  for (int i = 0; i < CLIENTS; i++) {
    clients[i].fd = socket(AF_INET, SOCK_STREAM, 0);
    nonblocking(clients[i].fd);
    int on = 1;
    CHECK(setsockopt(clients[i].fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);
    if (connect(clients[i].fd, (struct sockaddr *)&address, sizeof address) != 0) {
      CHECK(errno == EINPROGRESS);
      struct pollfd done = {.fd = clients[i].fd, .events = POLLOUT};
      CHECK(poll(&done, 1, 10000) == 1);
      CHECK(getsockopt(clients[i].fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
    }
  }
  while (open > 0) {
    struct pollfd polled[1 + 2 * CLIENTS];
    memset(polled, 0, sizeof polled);
    polled[0] = (struct pollfd){.fd = accepted < CLIENTS ? listener : -1, .events = POLLIN};
    for (int i = 0; i < CLIENTS; i++) {
      short wants = clients[i].sent < SIZE ? POLLIN | POLLOUT : POLLIN;
      polled[1 + i] = (struct pollfd){.fd = clients[i].fd, .events = wants};
      short serves = servers[i].held > 0 ? POLLOUT : POLLIN;
      polled[1 + CLIENTS + i] = (struct pollfd){.fd = i < accepted ? servers[i].fd : -1, .events = serves};
    }
    CHECK(poll(polled, 1 + 2 * CLIENTS, 10000) > 0);
    if (polled[0].revents & POLLIN) {
      struct sockaddr_in peer;
      socklen_t peer_length = sizeof peer;
      int fd = accept(listener, (struct sockaddr *)&peer, &peer_length);
      CHECK(fd >= 0 && peer.sin_family == AF_INET && peer.sin_port != 0);
      nonblocking(fd);
      servers[accepted++].fd = fd;
    }
    for (int i = 0; i < CLIENTS; i++) {
      if (clients[i].fd >= 0 && polled[1 + i].revents) {
        call(&clients[i], (size_t)i, polled[1 + i].revents);
        open -= clients[i].fd < 0;
      }
      if (i < accepted && servers[i].fd >= 0 && polled[1 + CLIENTS + i].revents && !echo(&servers[i])) {
        servers[i].fd = -1;
      }
    }
  }
  CHECK(close(listener) == 0);
  int refused = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(refused, (struct sockaddr *)&address, sizeof address) == -1 && errno == ECONNREFUSED);
  CHECK(close(refused) == 0);
}

static void datagrams(void) {
  struct sockaddr_in to, from, expected;
  char buffer[64];
  socklen_t length = sizeof from;
  int two = bound(SOCK_DGRAM, &to), one = bound(SOCK_DGRAM, &expected);
  CHECK(sendto(one, "ping", 4, 0, (struct sockaddr *)&to, sizeof to) == 4);
  CHECK(recvfrom(two, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length) == 4);
  CHECK(memcmp(buffer, "ping", 4) == 0 && from.sin_port == expected.sin_port);
  CHECK(close(one) == 0 && close(two) == 0);
}

static void names(void) {
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
  CHECK(getaddrinfo("localhost", "80", &hints, &found) == 0 && found != NULL);
  struct sockaddr_in *address = (struct sockaddr_in *)found->ai_addr;
  CHECK(found->ai_family == AF_INET && ntohs(address->sin_port) == 80);
  CHECK(ntohl(address->sin_addr.s_addr) >> 24 == 127);
  freeaddrinfo(found);
  CHECK(getaddrinfo("no.such.name", "80", &hints, &found) != 0);
}

int main(void) {
  streams();
  datagrams();
  names();
  puts("ok");
  return 0;
}
