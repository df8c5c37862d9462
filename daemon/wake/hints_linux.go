package wake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/login1"
	"golang.org/x/sys/unix"
)

// A network comes up in many steps (link, addresses, routes). They make one
// hint: settleTime after the last step, but at most settleMax after the first.
const (
	settleTime = time.Second
	settleMax  = 5 * time.Second
)

// A listener turns signs of a changed network and of the end of a sleep into
// hints.
type listener struct {
	missing func(what string, err error)
	seen    chan struct{} // holds one: there has been a sign
	done    sync.WaitGroup
}

// Watch calls hint, until ctx ends, when the network has changed or the machine
// has woken up. Nothing may depend on it: a sign can be missed, and some systems
// give none. It calls missing for each source of signs that it cannot use. It
// has no ticks.
func Watch(ctx context.Context, hint func(), missing func(what string, err error)) {
	watch(ctx, hint, missing)
}

func watch(ctx context.Context, hint func(), missing func(what string, err error)) *listener {
	h := &listener{missing: missing, seen: make(chan struct{}, 1)}
	h.done.Go(func() { h.settle(ctx, hint) })
	if n, err := openNetlink(); err != nil {
		missing("changes of the network are not seen", err)
	} else {
		h.done.Go(func() { h.readNetlink(ctx, n) })
	}
	h.done.Go(func() { h.readLogind(ctx) })
	return h
}

// see never blocks. One sign that waits to be dealt with is as good as many.
func (h *listener) see() {
	select {
	case h.seen <- struct{}{}:
	default:
	}
}

// settle calls hint once for signs that come close together.
func (h *listener) settle(ctx context.Context, hint func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.seen:
		}
		if !h.quiet(ctx) {
			return
		}
		hint()
	}
}

// quiet waits until the signs pause. It reports false when ctx has ended.
func (h *listener) quiet(ctx context.Context) bool {
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

// openNetlink subscribes to the kernel's messages about links, addresses and
// routes (rtnetlink(7)). That takes no privilege.
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

// readNetlink takes any message for a sign. It does not look at what changed,
// because it cannot know which link or route leads to the endpoint.
func (h *listener) readNetlink(ctx context.Context, f *os.File) {
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

// readLogind takes logind's signal that the machine has woken up for a sign.
// Most containers and some systems have no system bus. readLogind does not
// reconnect to a bus that was restarted, because the network gives signs too.
//
// DBUS_SYSTEM_BUS_ADDRESS is not checked, unlike the session bus's address: nothing
// secret is sent there, and what is heard is a hint.
//
// The library never launches a system bus, as it would a session bus. But a bus
// that is frozen keeps login1.New, and this goroutine, until the process ends.
func (h *listener) readLogind(ctx context.Context) {
	c, err := login1.New()
	if err != nil {
		h.missing("logind does not tell when the machine wakes up", err)
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

// resumed reports whether a signal says that sleep is over. It does not check
// the sender: any user of the machine can send the same, and a false hint does
// no harm.
func resumed(name string, body []any) bool {
	if name != "org.freedesktop.login1.Manager."+prepareForSleep || len(body) != 1 {
		return false
	}
	begins, ok := body[0].(bool)
	return ok && !begins
}
