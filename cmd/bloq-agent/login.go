package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/cmd/internal/built"
	"bloq-agent/daemon/config"
	"bloq-agent/ipc"
	"bloq-agent/store/trusted"

	"github.com/spf13/cobra"
)

// target is what login and add have in common: which profile, where.
type target struct {
	profile, environment            string
	accountsURL, nodesURL, loginURL string
	store                           string
	keepSecret                      bool
}

func (t *target) flags(cmd *cobra.Command) {
	profileFlag(cmd, &t.profile)
	cmd.Flags().StringVar(&t.environment, "environment", "", "prod, staging or local (default: what the profile has, else prod)")
	cmd.Flags().StringVar(&t.accountsURL, "accounts-url", "", "Accounts service: sets the URLs of login, tokens and client keys")
	cmd.Flags().StringVar(&t.nodesURL, "nodes-url", "", "Nodes API (default: the environment's, else the Accounts URL)")
	cmd.Flags().StringVar(&t.loginURL, "login-url", "", "where the password is sent (default: the environment's)")
	cmd.Flags().StringVar(&t.store, "store", "", "keyring, file, or memory, which forgets at exit (default: what the profile has, else the daemon's)")
	cmd.Flags().BoolVar(&t.keepSecret, "keep-client-secret", false, "store the client secret too")
}

func profileFlag(cmd *cobra.Command, profile *string) {
	cmd.Flags().StringVarP(profile, "profile", "p", os.Getenv("BLOQ_PROFILE"), "profile (default: $BLOQ_PROFILE, else the only one, else default)")
}

// adopt is the request that says where.
func (t *target) adopt() (ipc.Adopt, error) {
	for _, f := range []struct{ name, url string }{
		{"--accounts-url", t.accountsURL}, {"--nodes-url", t.nodesURL}, {"--login-url", t.loginURL},
	} {
		if f.url == "" {
			continue
		}
		if err := accounts.CheckURL(f.url); err != nil {
			return ipc.Adopt{}, fail(ipc.ExitUsage, "", "%s: %v", f.name, err)
		}
	}
	a := ipc.Adopt{Profile: t.profile, Environment: t.environment, Store: t.store}
	if t.accountsURL != "" {
		e := accounts.FromAccountsURL(t.accountsURL)
		a.LoginURL, a.TokenURL, a.KeysURL, a.NodesURL = e.Login, e.Token, e.Keys, e.Nodes
	}
	if t.loginURL != "" {
		a.LoginURL = t.loginURL
	}
	if t.nodesURL != "" {
		a.NodesURL = t.nodesURL
	}
	return a, nil
}

// prepare asks the daemon whether it could take over a login, before anything
// is created at the endpoint, and makes a client for the URLs in force.
func (t *target) prepare(cmd *cobra.Command) (*attempt, error) {
	a, err := t.adopt()
	if err != nil {
		return nil, err
	}
	l, err := dial(cmd)
	if err != nil {
		return nil, err
	}
	a.Check = true
	var where ipc.Adopted
	if err := l.post(ipc.RouteAdopt, a, &where); err != nil {
		return nil, err
	}
	a.Check, a.Profile, a.Store = false, where.Profile, where.Store
	client, err := l.accounts(accounts.Endpoints{Login: where.LoginURL, Token: where.TokenURL, Keys: where.KeysURL, Nodes: where.NodesURL})
	return &attempt{link: l, adopt: a, client: client, pending: where.Pending, keepSecret: t.keepSecret}, err
}

// An attempt is a login or an addition under way.
type attempt struct {
	link       link
	adopt      ipc.Adopt // what the daemon will be asked to take over
	client     *accounts.Client
	pending    []string // client keys that attempts before have left behind
	keepSecret bool
}

// accounts is a client that trusts what the daemon's configuration trusts.
func (l link) accounts(e accounts.Endpoints) (*accounts.Client, error) {
	var s ipc.Status
	if err := l.get(ipc.RouteStatus, nil, &s); err != nil {
		return nil, err
	}
	c, _, err := config.Load(s.Config.Path)
	if err != nil {
		return nil, failAll(ipc.ExitUnavailable, cmp.Or(trusted.Mend(err), "bloq-agent config check"), err)
	}
	return accounts.New(e, accounts.Options{UserAgent: "bloq-agent/" + built.Version(), RootCAs: c.Roots})
}

func loginCommand() *cobra.Command {
	var t target
	var user string
	var passwordStdin bool
	cmd := &cobra.Command{
		Use:   "login",
		Short: "log in with a user and a password",
		Long: `Log in with the user ID or e-mail and the password of a Bloq account. The
password is used once and stored nowhere. It buys client keys, which buy the
refresh token that the daemon keeps.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			a, err := t.prepare(cmd)
			if err != nil {
				return err
			}
			if user == "" {
				if user, err = ask("user ID or e-mail"); err != nil {
					return err
				}
			}
			var password []byte
			if passwordStdin {
				password, err = readSecret("password")
			} else {
				password, err = askSecret("password of "+user, loginWithoutTerminal)
			}
			if err != nil {
				return err
			}
			defer clear(password)
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return a.login(ctx, user, password)
		}),
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&user, "user", "", "user ID or e-mail (default: asks)")
	cmd.Flags().BoolVar(&passwordStdin, "password-stdin", false, "read the password from stdin")
	return cmd
}

func (a *attempt) login(ctx context.Context, user string, password []byte) error {
	account, err := a.client.Login(ctx, user, password)
	if err != nil {
		return endpointError(err)
	}
	a.dropPending(ctx, account.AccessToken)
	key, err := a.client.CreateKey(ctx, account.AccessToken)
	if err != nil {
		return endpointError(err)
	}
	// From here until the daemon has the login a failure must name the client
	// keys: Bloq keeps them for ever, and their secret is lost with us.
	done, err := a.finish(ctx, account, key)
	if err != nil {
		return leftBehind(err, key.ID, a.adopt.Profile)
	}
	return loggedIn(done)
}

// finish buys a refresh token with the client keys and hands it over.
func (a *attempt) finish(ctx context.Context, account accounts.Grant, key accounts.Key) (ipc.Adopted, error) {
	a.adopt.ClientID = key.ID
	note := a.adopt
	note.Note = true
	if err := a.link.post(ipc.RouteAdopt, note, new(ipc.Adopted)); err != nil {
		return ipc.Adopted{}, err
	}
	grant, err := a.client.ClientCredentials(ctx, key.ID, key.Secret)
	if err != nil {
		return ipc.Adopted{}, endpointError(err)
	}
	a.adopt.AccountToken = ipc.Text(account.AccessToken)
	return a.handOver(grant, key.Secret)
}

// loggedIn tells of a login that the daemon has, whether stdout takes it or not.
func loggedIn(done ipc.Adopted) error {
	err := printf("logged in as profile %s; access token good until %s\n", done.Profile, clockTime(done.ExpiresAt))
	if done.Warning != "" {
		complain("warning: %s", done.Warning)
	}
	if id := done.PreviousClientID; id != "" {
		complain("client keys %s of the login before still exist", id)
		complain("hint: bloq-agent keys delete %s --profile %s", id, done.Profile)
	}
	return err
}

// handOver gives what the client keys bought to the daemon.
func (a *attempt) handOver(grant accounts.Grant, clientSecret []byte) (ipc.Adopted, error) {
	var done ipc.Adopted
	if grant.RefreshErr != nil {
		return done, fail(ipc.ExitUnavailable, "", "the token endpoint returned a refresh token that cannot be used: %v", grant.RefreshErr)
	}
	if len(grant.RefreshToken) == 0 {
		return done, fail(ipc.ExitUnavailable, "", "the token endpoint returned no refresh token")
	}
	a.adopt.RefreshToken, a.adopt.AccessToken = ipc.Text(grant.RefreshToken), ipc.Text(grant.AccessToken)
	a.adopt.IssuedAt = grant.IssuedAt
	if a.keepSecret {
		a.adopt.ClientSecret = ipc.Text(clientSecret)
	}
	err := a.link.post(ipc.RouteAdopt, a.adopt, &done)
	return done, err
}

// dropPending deletes client keys that failed logins have left: nobody knows
// their secret. What cannot be deleted stays on the daemon's list.
func (a *attempt) dropPending(ctx context.Context, accountToken []byte) {
	for _, id := range a.pending {
		err := a.client.DeleteKey(ctx, accountToken, id)
		switch {
		case err == nil:
			complain("deleted client keys %s, which a failed login had left", id)
		case !isGone(err):
			complain("client keys %s of a failed login could not be deleted: %v", id, err)
			continue
		}
		a.adopt.Deleted = append(a.adopt.Deleted, id)
	}
}

// isGone reports whether what was to be deleted is not there any more.
func isGone(err error) bool {
	var e *accounts.Error
	return errors.As(err, &e) && e.Status == 404
}

// leftBehind adds to err which client keys were created in vain.
func leftBehind(err error, id, profile string) error {
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{code: ipc.ExitInternal, text: text("%v", err)}
	}
	return &failure{
		code: f.code,
		text: text("%s (client keys %s were created; a later login deletes them)", f.text, id),
		hint: "bloq-agent login --profile " + profile,
	}
}

// endpointError gives the exit code of what the Accounts service said.
func endpointError(err error) error {
	var e *accounts.Error
	if !errors.As(err, &e) {
		return fail(ipc.ExitUsage, "", "%v", err)
	}
	if accounts.UnknownAuthority(err) {
		return fail(ipc.ExitUnavailable, config.Config{}.TrustHint(), "%v", err)
	}
	if e.Unsent { // the endpoint said nothing
		return fail(ipc.ExitUnavailable, "", "%v", err)
	}
	switch e.Class {
	case accounts.Refused, accounts.InvalidGrant, accounts.Configuration:
		return fail(ipc.ExitPerson, "", "%v", err)
	}
	return fail(ipc.ExitUnavailable, "", "%v", err)
}

func clockTime(t time.Time) string { return t.Local().Format("15:04:05") }
