package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon/config"
	"bloq-agent/ipc"
	"bloq-agent/store/trusted"

	"github.com/spf13/cobra"
)

// bclFile is what Bloq's own CLI (bcl 4) leaves in its configuration file, in
// clear. Each member may be missing.
type bclFile struct {
	Env          string   `json:"env"`
	User         string   `json:"user"`
	AccessToken  ipc.Text `json:"accessToken"` // of the account: never a client token
	ClientID     string   `json:"clientId"`
	ClientSecret ipc.Text `json:"clientSecret"`
	RefreshToken ipc.Text `json:"refreshToken"`
	Services     map[string]struct {
		Accounts struct {
			URL string `json:"url"`
		} `json:"accounts"`
		Nodes struct {
			URL string `json:"url"`
		} `json:"nodes"`
	} `json:"services"`
}

func importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import", Short: "take over the login of another program", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(importBCLCommand())
	return cmd
}

func importBCLCommand() *cobra.Command {
	var t target
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "bcl",
		Short: "take over what Bloq's own CLI left in its plain-text file",
		Long: `Take over the refresh token, or else the client keys, that Bloq's own CLI (bcl)
left in its configuration file. The file is read and not written; what to type
to remove the secrets from it is printed at the end.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			path, err := bclPath(os.Getenv)
			if err != nil {
				return err
			}
			f, err := readBCL(path)
			if err != nil {
				return err
			}
			if err := f.aim(&t); err != nil {
				return err
			}
			if err := describeBCL(path, f, t.profile); err != nil || dryRun {
				return err
			}
			done, err := takeOverBCL(cmd, &t, f)
			if err != nil {
				return err
			}
			complain("%s still holds the secrets in clear", path)
			// Not while it is the only copy that lasts, or is known to work.
			if done.Store != "memory" && !done.ExpiresAt.IsZero() {
				complain("hint: shred -u %s", ipc.ShellWord(path))
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&t.profile, "profile", "p", "", "profile to make (default: default for prod, else the environment's name)")
	cmd.Flags().StringVar(&t.store, "store", "", "keyring, file or memory (default: the daemon's)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be taken over")
	return cmd
}

// bclPath is in the same directory of configurations as ours.
func bclPath(getenv func(string) string) (string, error) {
	ours, err := config.Path(getenv)
	if err != nil {
		return "", fail(ipc.ExitUsage, "", "%v", err)
	}
	return filepath.Join(filepath.Dir(filepath.Dir(ours)), "@bloq", "cloud-cli-nodejs", "config.json"), nil
}

func readBCL(path string) (bclFile, error) {
	var f bclFile
	b, err := trusted.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, fail(ipc.ExitUsage, "bloq-agent login", "bcl has left nothing: %s is not there", path)
	}
	if err != nil {
		return f, err
	}
	// The library's errors quote what they do not like, which may be a secret.
	if json.Unmarshal(b, &f) != nil {
		return f, fail(ipc.ExitUsage, "bloq-agent login", "%s is not what bcl writes", path)
	}
	switch {
	case f.useful() || f.hasKeys():
		return f, nil
	case len(f.RefreshToken) == 0:
		return f, fail(ipc.ExitPerson, "bloq-agent login", "%s holds neither a refresh token nor client keys", path)
	}
	return f, fail(ipc.ExitPerson, "bloq-agent login", "%s holds no client keys, and a refresh token that has expired or is none", path)
}

func (f bclFile) hasKeys() bool { return f.ClientID != "" && len(f.ClientSecret) > 0 }

// aim sets what the file says of the environment.
func (f bclFile) aim(t *target) error {
	t.environment = f.Env
	if t.environment == "" {
		t.environment = "prod"
	}
	preset, err := accounts.Environment(t.environment)
	if err != nil {
		return fail(ipc.ExitUsage, "", "bcl's file: %v", err)
	}
	s := f.Services[t.environment]
	// bcl writes "local" with a name, which http is not allowed to.
	accountsURL := strings.Replace(s.Accounts.URL, "http://localhost", "http://127.0.0.1", 1)
	if accountsURL != "" && accounts.FromAccountsURL(accountsURL).Token != preset.Token {
		t.accountsURL = accountsURL
	}
	if nodes := strings.Replace(s.Nodes.URL, "http://localhost", "http://127.0.0.1", 1); nodes != "" && nodes != preset.Nodes {
		t.nodesURL = nodes
	}
	if t.profile == "" {
		t.profile = "default"
		if t.environment != "prod" {
			t.profile = t.environment
		}
	}
	return nil
}

// useful reports whether the refresh token has some life left.
func (f bclFile) useful() bool {
	times, err := accounts.TokenTimes(f.RefreshToken)
	return err == nil && (times.Expiry.IsZero() || time.Now().Before(times.Expiry))
}

func describeBCL(path string, f bclFile, profile string) error {
	what := "client keys " + f.ClientID
	if f.useful() {
		what = "a refresh token"
		if times, err := accounts.TokenTimes(f.RefreshToken); err == nil && !times.Expiry.IsZero() {
			what += " that ends on " + times.Expiry.Local().Format(time.DateOnly)
		}
	}
	return printf("%s has %s; profile %s\n", path, what, profile)
}

func takeOverBCL(cmd *cobra.Command, t *target, f bclFile) (ipc.Adopted, error) {
	a, err := t.prepare(cmd)
	if err != nil {
		return ipc.Adopted{}, err
	}
	a.adopt.ClientID = f.ClientID
	if times, err := accounts.TokenTimes(f.AccessToken); err == nil && accounts.Sendable(f.AccessToken) && time.Now().Before(times.Expiry) {
		a.adopt.AccountToken = f.AccessToken
	}
	if f.useful() {
		proposal := a.adopt
		proposal.RefreshToken = f.RefreshToken
		var done ipc.Adopted
		err := a.link.post(ipc.RouteAdopt, proposal, &done)
		if err == nil {
			return done, added(done)
		}
		var refused *failure
		if !f.hasKeys() || !errors.As(err, &refused) || refused.code != ipc.ExitPerson {
			return done, err
		}
		complain("%v; taking the client keys", err)
	}
	grant, err := a.client.ClientCredentials(cmd.Context(), f.ClientID, f.ClientSecret)
	if err != nil {
		return ipc.Adopted{}, endpointError(err)
	}
	done, err := a.handOver(grant, f.ClientSecret)
	if err != nil {
		return done, err
	}
	return done, added(done)
}
