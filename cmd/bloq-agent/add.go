package main

import (
	"bloq-agent/ipc"

	"github.com/spf13/cobra"
)

func addCommand() *cobra.Command {
	var t target
	var clientID string
	var secretStdin, refreshStdin bool
	cmd := &cobra.Command{
		Use:   "add",
		Short: "take over client keys or a refresh token that you have",
		Example: `  bloq-agent add --client-id ID --client-secret-stdin < secret
  bloq-agent add --refresh-token-stdin < token`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			switch {
			case secretStdin == refreshStdin:
				return fail(ipc.ExitUsage, "bloq-agent add --help", "give one of --client-secret-stdin and --refresh-token-stdin")
			case secretStdin && clientID == "":
				return fail(ipc.ExitUsage, "bloq-agent add --help", "--client-secret-stdin needs --client-id")
			case refreshStdin && (clientID != "" || t.keepSecret):
				return fail(ipc.ExitUsage, "bloq-agent add --help", "--refresh-token-stdin goes without client keys")
			}
			a, err := t.prepare(cmd)
			if err != nil {
				return err
			}
			if refreshStdin {
				return a.addRefreshToken()
			}
			secret, err := readSecret("client secret")
			if err != nil {
				return err
			}
			defer clear(secret)
			grant, err := a.client.ClientCredentials(cmd.Context(), clientID, secret)
			if err != nil {
				return endpointError(err)
			}
			a.adopt.ClientID = clientID
			done, err := a.handOver(grant, secret)
			if err != nil {
				return err
			}
			return added(done)
		}),
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&clientID, "client-id", "", "client ID of the keys")
	cmd.Flags().BoolVar(&secretStdin, "client-secret-stdin", false, "read the client secret from stdin")
	cmd.Flags().BoolVar(&refreshStdin, "refresh-token-stdin", false, "read a refresh token from stdin")
	return cmd
}

// addRefreshToken lets the daemon prove the token: proving spends it, and only
// one process may do that.
func (a *attempt) addRefreshToken() error {
	token, err := readSecret("refresh token")
	if err != nil {
		return err
	}
	defer clear(token)
	a.adopt.RefreshToken = token
	var done ipc.Adopted
	if err := a.link.post(ipc.RouteAdopt, a.adopt, &done); err != nil {
		return err
	}
	return added(done)
}

func added(done ipc.Adopted) error {
	if done.Warning != "" {
		complain("warning: %s", done.Warning)
	}
	if done.ExpiresAt.IsZero() { // not proved
		return printf("added profile %s\n", done.Profile)
	}
	return printf("added profile %s; access token good until %s\n", done.Profile, clockTime(done.ExpiresAt))
}
