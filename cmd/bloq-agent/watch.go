package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/ipc/client"
)

// watchEvents prints the daemon's events until it is interrupted. The stream
// holds no secret and our request neither, so it needs no look at who serves.
func watchEvents(ctx context.Context, l link, profile string, asJSON bool) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	stream := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", l.socket)
		},
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bloq-agent"+ipc.RouteEvents, nil)
	if err != nil {
		return err
	}
	answer, err := stream.Do(r)
	if err != nil {
		var sys syscall.Errno
		if errors.As(err, &sys) {
			return l.unanswered(&client.ConnectError{Path: l.socket, Err: sys})
		}
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(answer.Body, ipc.MaxAnswer))
		if err != nil {
			return err
		}
		return refused(client.Answer{Status: answer.StatusCode, Body: body})
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, ipc.MaxAnswer)
	for lines.Scan() {
		data, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found {
			continue
		}
		if err := showEvent(data, profile, asJSON); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fail(ipc.ExitNoDaemon, client.StartHint(l.flag), "the daemon has ended the stream")
}

func showEvent(data, profile string, asJSON bool) error {
	var e ipc.Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return err
	}
	if profile != "" && e.Profile != profile {
		return nil
	}
	if asJSON {
		return printJSON(json.RawMessage(data), "")
	}
	line := e.Time.Local().Format(time.TimeOnly) + "  " + e.Event
	if e.Profile != "" {
		line += "  " + e.Profile
	}
	if s := e.Status; s != nil {
		line += ": " + s.State
		if !s.ExpiresAt.IsZero() {
			line += ", good for " + until(s.ExpiresAt)
		}
		if !s.NextRefresh.IsZero() {
			line += ", next refresh " + in(s.NextRefresh)
		}
		if s.LastError != "" {
			line += "; " + strings.TrimPrefix(s.LastError, e.Profile+": ")
		}
	}
	return printf("%s\n", line)
}
