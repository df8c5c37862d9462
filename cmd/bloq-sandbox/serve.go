package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// A ttl is a duration flag that takes bare seconds too.
type ttl time.Duration

func (t *ttl) String() string { return time.Duration(*t).String() }

func (t *ttl) Set(s string) error {
	d, err := ipc.ParseDuration(s)
	if err != nil || d < time.Second {
		return errors.New("a duration of at least 1s (90s, 5m, 1h30m, or bare seconds)")
	}
	*t = ttl(d)
	return nil
}

type serveOptions struct {
	listen   string
	anywhere bool
	tls      bool
	config   sandbox.Config
}

func parseServe(args []string) (serveOptions, error) {
	o := serveOptions{}
	access, account, refresh := ttl(time.Hour), ttl(12*time.Hour), ttl(8760*time.Hour)
	f := flag.NewFlagSet("bloq-sandbox serve", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.listen, "listen", "127.0.0.1:4000", "address and port; port 0 picks one")
	f.BoolVar(&o.anywhere, "dangerously-listen-beyond-loopback", false, "allow an address that others can reach")
	f.Var(&access, "access-ttl", "lifetime of an access token")
	f.Var(&account, "account-ttl", "lifetime of an account token")
	f.Var(&refresh, "refresh-ttl", "lifetime of a refresh token")
	f.StringVar(&o.config.Email, "user", "", "e-mail of the one user (default demo@bloq.example)")
	f.StringVar(&o.config.Password, "password", "", "the user's password; others see it in the process list (default: made up, and printed)")
	f.StringVar(&o.config.StateFile, "state", "", "file that keeps user, keys and tokens over restarts")
	f.BoolVar(&o.tls, "tls", false, "serve https with a certificate made for this run")
	f.Func("rotate", "none, strict, or grace=30s: what the refresh grant does to the refresh token (default none)", func(s string) (err error) {
		o.config.Rotation, err = sandbox.ParseRotation(s)
		return err
	})
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(os.Stdout)
		f.Usage()
		return o, err
	case err != nil:
		return o, &usageError{err.Error(), "bloq-sandbox serve --help"}
	case f.NArg() > 0:
		return o, &usageError{fmt.Sprintf("serve takes no argument %q", f.Arg(0)), "bloq-sandbox serve --help"}
	}
	o.config.AccessTTL, o.config.AccountTTL, o.config.RefreshTTL = time.Duration(access), time.Duration(account), time.Duration(refresh)
	address, err := netip.ParseAddrPort(o.listen)
	switch {
	case err != nil:
		return o, &usageError{fmt.Sprintf("--listen %q: an IP address and a port, like 127.0.0.1:4000", o.listen), ""}
	case !address.Addr().IsLoopback() && !o.anywhere:
		return o, &usageError{fmt.Sprintf("--listen %s: others could reach it; loopback only", o.listen), "bloq-sandbox serve --listen 127.0.0.1:4000"}
	}
	return o, nil
}

// hello is the line that serve prints when it listens.
type hello struct {
	AccountsURL string `json:"accounts_url"`
	NodesURL    string `json:"nodes_url"`
	Email       string `json:"email"`
	Password    string `json:"password"`
	CAFile      string `json:"ca_file,omitempty"`
}

func serve(args []string) error {
	o, err := parseServe(args)
	if err != nil {
		return err
	}
	api, err := sandbox.New(o.config)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	line := hello{AccountsURL: "http://" + l.Addr().String(), Email: api.Email(), Password: api.Password()}
	if o.tls {
		config, caFile, err := selfSigned()
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(caFile) }()
		l = tls.NewListener(l, config)
		line.AccountsURL, line.CAFile = "https://"+l.Addr().String(), caFile
	}
	line.NodesURL = line.AccountsURL
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(append(ipc.VisibleJSON(b), '\n')); err != nil {
		return err
	}
	return serveUntilSignal(l, api)
}

func serveUntilSignal(l net.Listener, api *sandbox.Server) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	srv := &http.Server{Handler: api, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }() // ends with Shutdown or Close
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	api.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		return srv.Close()
	}
	return nil
}
