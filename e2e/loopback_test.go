package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

func init() { attacks["listen in place of the endpoint"] = listenInPlace }

// listenInPlace listens on an address until stdin ends. It prints what it is sent
// before it answers.
func listenInPlace(args []string) {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		panic(err)
	}
	fmt.Println("listening")
	go func() { // ends with the process
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 64<<10)
			if n, _ := c.Read(buf); n > 0 {
				fmt.Printf("%q\n", buf[:n])
			}
			_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
			_ = c.Close()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// inPlace runs f while who listens at address, and returns what it was sent.
func (w *world) inPlace(who *syscall.Credential, address string, f func()) string {
	w.t.Helper()
	cmd := w.attacker(who, "listen in place of the endpoint", address)
	stdin, err := cmd.StdinPipe()
	must(w.t, err)
	stdout, err := cmd.StdoutPipe()
	must(w.t, err)
	must(w.t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := newLines(stdout)
	if !lines.Scan() {
		w.t.Fatal("the attacker could not listen")
	}
	f()
	_ = stdin.Close()
	var heard strings.Builder
	for lines.Scan() {
		heard.WriteString(lines.Text() + "\n")
	}
	return heard.String()
}

// While an endpoint on loopback is stopped, any user can bind its port. Neither
// the daemon nor a command sends a byte there, except for our own user's and
// root's listeners.
func TestALoopbackPortOfAnotherUserGetsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to play another user")
	}
	w := newWorld(t, sandbox.Config{})
	endpoint := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.secrets.serve(w.api.Load(), rw, r)
	}))
	w.url = endpoint.URL
	address := endpoint.Listener.Addr().String()
	w.start("--store", "file")
	w.login()
	endpoint.Close()

	port := address[strings.LastIndex(address, ":")+1:]
	belongs := "port " + port + " on 127.0.0.1 belongs to another user (uid 65533); nothing was sent"
	calls := func(says string) func() {
		return func() {
			_ = w.run("", "bloq-agent", "refresh") // too soon after another, it sends nothing
			w.logged(`"err":"refresh: ` + says)
			for _, args := range [][]string{
				{"login", "--accounts-url", w.url, "--user", w.user, "--password-stdin"},
				{"add", "--accounts-url", w.url, "--client-id", "some-id", "--client-secret-stdin"},
				{"keys", "list"},
				{"keys", "create"},
				{"keys", "delete", "some-id"},
			} {
				r := w.run(w.pass+"\n", "bloq-agent", args...)
				if r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, says) {
					t.Errorf("%q: %+v", args, r)
				}
			}
		}
	}
	other := &syscall.Credential{Uid: otherUser, Gid: otherUser}
	if heard := w.inPlace(other, address, calls(belongs)); heard != "" {
		t.Errorf("another user was sent %s", heard)
	}
	if heard := w.inPlace(other, "0.0.0.0:"+port, calls(belongs)); heard != "" {
		t.Errorf("another user was sent %s", heard)
	}
	if !strings.Contains(w.log.String(), `"level":"error","profile":"default","gen":1,"attempt":1,"err":"refresh: `+belongs) {
		t.Errorf("the log has no error: %s", w.log.String())
	}
	// The same calls to a listener of our own reach it.
	heard := w.inPlace(nil, address, calls("503"))
	for _, path := range []string{"POST /auth/token", "POST /auth HTTP", "GET /users/me/client-keys", "POST /users/me/client-keys", "DELETE /users/me/client-keys/"} {
		if !strings.Contains(heard, path) {
			t.Errorf("our own listener was not sent %s:\n%s", path, heard)
		}
	}
	if status := w.run("", "bloq-agent", "status").stdout; strings.Contains(status, "loopback") {
		t.Errorf("status doubts the answers: %s", status)
	}
}
