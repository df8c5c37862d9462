package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/login1"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A network that comes up changes in many steps (link, addresses, routes). They
// are one hint, after settleTime without another step, or settleMax after the
// first.
const (
	settleTime = time.Second
	settleMax  = 5 * time.Second
)

// A hinter listens for signs that the endpoint may be within reach again: the
// network has changed, or the machine has woken up. Nothing depends on them: a
// sign that is missed, or cannot be had at all, costs at most the rest of a
// backoff. It has no ticks, and sleeps until there is a sign.
type hinter struct {
	log  zerolog.Logger
	seen chan struct{} // holds one: there has been a sign
	done sync.WaitGroup
}

// watchHints calls f after each sign until ctx ends.
func watchHints(ctx context.Context, log zerolog.Logger, f func()) *hinter {
	h := &hinter{log: log, seen: make(chan struct{}, 1)}
	h.done.Go(func() { h.settle(ctx, f) })
	if n, err := openNetlink(); err != nil {
		log.Debug().Err(err).Msg("changes of the network are not seen")
	} else {
		h.done.Go(func() { h.readNetlink(ctx, n) })
	}
	h.done.Go(func() { h.readLogind(ctx) })
	return h
}

// watchHints passes signs on to the refreshers until ctx ends.
func (d *Daemon) watchHints(ctx context.Context) { watchHints(ctx, d.log, d.hint) }

// see never blocks: while a sign waits to be dealt with, another says no more.
func (h *hinter) see() {
	select {
	case h.seen <- struct{}{}:
	default:
	}
}

// settle calls f once for signs that come close together.
func (h *hinter) settle(ctx context.Context, f func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.seen:
		}
		if !h.quiet(ctx) {
			return
		}
		f()
	}
}

// quiet waits until the signs pause. It reports false when ctx has ended.
func (h *hinter) quiet(ctx context.Context) bool {
	pause, latest := time.NewTimer(settleTime), time.NewTimer(settleMax)
	defer pause.Stop()
	defer latest.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-h.seen:
			pause.Reset(settleTime)
		case <-pause.C:
			return true
		case <-latest.C:
			return true
		}
	}
}

// openNetlink subscribes to what the kernel tells of links, addresses and
// routes (rtnetlink(7)). Anybody may.
func openNetlink() (*os.File, error) {
	// Nonblocking, so that Go's poller waits for it and Close ends a Read.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	err = unix.Bind(fd, &unix.SockaddrNetlink{
		Family: unix.AF_NETLINK,
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netlink: %w", err), f.Close())
	}
	return f, nil
}

// readNetlink takes any message for a sign. What changed is not looked at: which
// link or route leads to the endpoint is not for us to say.
func (h *hinter) readNetlink(ctx context.Context, f *os.File) {
	stop := context.AfterFunc(ctx, func() { _ = f.Close() }) // ends the Read
	defer func() {
		if stop() {
			_ = f.Close() // it could not be read any more
		}
	}()
	var first [1]byte // the kernel drops the rest of the datagram
	for {
		_, err := f.Read(first[:])
		// ENOBUFS: more came than the socket holds, so some changes are lost.
		if err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return
		}
		h.see()
	}
}

const prepareForSleep = "PrepareForSleep"

// readLogind takes logind's word that the machine has woken up for a sign. Most
// containers and some systems have no system bus, so that is no matter. A bus
// that is restarted is not connected to again: the network tells as well.
//
// DBUS_SYSTEM_BUS_ADDRESS is not checked, unlike the session bus's: nothing that
// is secret is said there, and what is heard is a hint.
//
// Unlike the session bus, the system bus is never launched by the library. But
// one that is frozen keeps the call of New, and this goroutine, until the end of
// the process.
func (h *hinter) readLogind(ctx context.Context) {
	c, err := login1.New()
	if err != nil {
		h.log.Debug().Err(err).Msg("logind does not tell when the machine wakes up")
		return
	}
	stop := context.AfterFunc(ctx, c.Close) // ends the call in Subscribe, too
	defer func() {
		if stop() {
			c.Close() // the bus went away
		}
	}()
	signals := c.Subscribe(prepareForSleep)
	for {
		select {
		case <-ctx.Done(): // signals stays open if the bus was closed before it was made
			return
		case s, ok := <-signals:
			if !ok {
				return
			}
			if resumed(s.Name, s.Body) {
				h.see()
			}
		}
	}
}

// resumed reports whether a signal says that sleep is over. Who sent it is not
// checked: any user of the machine could send the same, and for a hint that is
// no harm.
func resumed(name string, body []any) bool {
	if name != "org.freedesktop.login1.Manager."+prepareForSleep || len(body) != 1 {
		return false
	}
	begins, ok := body[0].(bool)
	return ok && !begins
}
