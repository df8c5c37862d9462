package main

import (
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/ipc/client"

	"github.com/spf13/cobra"
)

// patience is how long a command waits for the daemon: an adoption may wait
// for two exchanges of 20 s and a keyring.
const patience = 60 * time.Second

// A link is the way to the daemon.
type link struct {
	socket string
	flag   string // --socket as it was given, or ""
}

func dial(cmd *cobra.Command) (link, error) {
	flag, err := cmd.Flags().GetString("socket")
	if err != nil {
		return link{}, err
	}
	socket, err := client.Locate(flag)
	if err != nil {
		return link{}, fail(ipc.ExitUsage, "", "%s: %v", socket, err)
	}
	return link{socket, flag}, nil
}

// post sends body and reads the answer into answer. It is sent only once: an
// adoption may spend a refresh token.
func (l link) post(route string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return l.do(client.Request{Method: "POST", Target: route, Body: b, Timeout: patience, Once: true}, answer)
}

func (l link) get(route string, query url.Values, answer any) error {
	if len(query) > 0 {
		route += "?" + query.Encode()
	}
	return l.do(client.Request{Target: route}, answer)
}

func (l link) do(r client.Request, answer any) error {
	a, err := client.Do(l.socket, r)
	if err != nil {
		return l.unanswered(err)
	}
	if a.Status >= 400 {
		return refused(a)
	}
	if err := json.Unmarshal(a.Body, answer); err != nil {
		return fail(ipc.ExitInternal, "", "the daemon's answer cannot be read: is it of another version?")
	}
	return nil
}

func (l link) unanswered(err error) error {
	var c *client.ConnectError
	switch {
	case errors.As(err, &c):
		return fail(ipc.ExitNoDaemon, client.StartHint(l.flag), "%v", err)
	case errors.Is(err, client.ErrForeignServer):
		return fail(ipc.ExitNoDaemon, "", "%v", err)
	case errors.Is(err, client.ErrBadAnswer):
		return fail(ipc.ExitInternal, "", "%v", err)
	}
	return fail(ipc.ExitUnavailable, "bloq-agent status", "%v", err)
}

func refused(a client.Answer) error {
	var p ipc.Problem
	if json.Unmarshal(a.Body, &p) != nil || p.Code == "" {
		return fail(ipc.ExitInternal, "", "daemon answered with status %d", a.Status)
	}
	return &failure{code: p.Code.Exit(), text: text("%s", p.Detail), hint: p.Hint, passphrase: p.Passphrase}
}

// status is the status of one profile. An empty name means the only one.
func (l link) status(name string) (ipc.ProfileStatus, error) {
	var s ipc.Status
	if err := l.get(ipc.RouteStatus, only(name), &s); err != nil {
		return ipc.ProfileStatus{}, err
	}
	for _, p := range s.Profiles {
		if len(s.Profiles) == 1 || p.Profile == "default" {
			return p, nil
		}
	}
	return ipc.ProfileStatus{}, fail(ipc.ExitUsage, "bloq-agent status", "no such profile %q", "default")
}

// only is the query for one profile, or for all.
func only(profile string) url.Values {
	if profile == "" {
		return nil
	}
	return url.Values{"profile": {profile}}
}

// accountToken is the Account Access Token of the profile's last login.
func (l link) accountToken(profile string) ([]byte, error) {
	var t ipc.TokenAnswer
	q := url.Values{"kind": {"account"}}
	if profile != "" {
		q.Set("profile", profile)
	}
	if err := l.get(ipc.RouteToken, q, &t); err != nil {
		return nil, err
	}
	return t.Token, nil
}
