/* systemd's notification protocol, without its library: one datagram to $NOTIFY_SOCKET. Does nothing without it. */
#pragma once

void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* "READY=1\nSTATUS=…" */
