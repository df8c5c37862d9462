package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bloq-agent/ipc"
)

// A home that does not answer holds every file call of the daemon: of the state, the
// key, the configuration and the token files. The daemon serves, more requests than
// it may have threads are answered, and the watchdog leaves it alone. When the home
// answers again, so do the refreshes.
func TestAHomeThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	const profiles = 200
	h := ready(t)
	u := h.userUnit("alice")
	u.quick()
	// Not all of her home, without which her manager hangs as well.
	const home = "/srv/alice"
	h.must("root", "install", "-d", "-o", "alice", "-g", "alice", home)
	places := []string{"XDG_STATE_HOME=" + home + "/state", "XDG_DATA_HOME=" + home + "/key", "XDG_CONFIG_HOME=" + home + "/config"}
	u.dropIn("home", "[Service]\nEnvironment="+strings.Join(places, " ")+"\n")
	h.serving()
	u.systemctl("stop", "bloq-agent.service")
	h.must("alice", append(append([]string{"env", "BLOQ_E2E_INSIDE=fill"}, places...), "inside", strconv.Itoa(profiles))...)
	var sinks strings.Builder
	for i := 1; i < 100; i++ {
		fmt.Fprintf(&sinks, "[[profile.profile-%d.sink]]\npath = \"%s/token-%d\"\n", i, home, i)
	}
	h.write("alice", home+"/config/bloq-agent/config.toml", sinks.String())
	u.systemctl("start", "bloq-agent.service")
	token := u.mustToken()
	h.eventually(30*time.Second, "the token files are written", func() bool { return h.exists(home + "/token-99") })

	hang := h.command(context.Background(), "root", "env", "BLOQ_E2E_INSIDE=hang", "inside", home)
	stdin, err := hang.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	hang.Stdout, hang.Stderr = &said, &said
	if err := hang.Start(); err != nil {
		t.Fatal(err)
	}
	h.eventually(10*time.Second, "the home hangs", func() bool {
		return strings.Contains(h.must("root", "cat", "/proc/mounts"), "hung "+home)
	})
	u.systemctl("reload", "bloq-agent.service") // reads the configuration, in vain
	out := h.must("root", "setpriv", "--reuid", h.uid("alice"), "--clear-groups", "env", "BLOQ_E2E_INSIDE=flood", "inside", u.socketPath())
	t.Logf("%s; %s threads", strings.TrimSpace(out), u.process("Threads"))
	if threads, err := strconv.Atoi(u.process("Threads")); err != nil || threads > 50 {
		t.Errorf("%d threads, %v", threads, err)
	}
	if n := u.restarts(); n != 0 {
		t.Errorf("%d restarts", n)
	}

	_ = stdin.Close()
	if err := hang.Wait(); err != nil {
		t.Errorf("%v: %s", err, said.String())
	}
	h.eventually(60*time.Second, "the refreshes go on", func() bool {
		h.must("alice", "bloq-agent", "refresh")
		return u.mustToken() != token
	})
	if n := u.restarts(); n != 0 {
		t.Errorf("%d restarts after the home is back\n%s", n, h.journal())
	}
}

// hang mounts a file system over dir that answers nothing until the input ends.
func hang(dir string) int {
	_ = syscall.Mknod("/dev/fuse", syscall.S_IFCHR|0o600, 10<<8|229) // it may be there
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err == nil {
		err = syscall.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd))
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = syscall.Close(fd) // each call that waits fails now
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// flood asks for a refresh of every profile, and for as long as the watchdog needs
// to act twice, 100 at a time for the status and a token. It prints how many were
// answered, how many not, and what the status says of a refresh that hangs.
func flood(socket string) int {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	for i := 1; i < 200; i++ {
		go func() { // ends with the process: the answer comes when the disk does
			_, _ = client.Post("http://bloq-agent"+ipc.RouteRefresh, "", strings.NewReader(fmt.Sprintf(`{"profile":"profile-%d"}`, i)))
		}()
	}
	var mu sync.Mutex // guards what follows
	answered, failed, stuck, worst := 0, 0, 0, time.Duration(0)
	var wg sync.WaitGroup
	end := time.Now().Add(8 * time.Second)
	for i := range 100 {
		route := []string{ipc.RouteStatus, ipc.RouteToken + "?profile=profile-1"}[i%2]
		wg.Go(func() {
			for time.Now().Before(end) {
				start := time.Now()
				answer, err := client.Get("http://bloq-agent" + route)
				var body []byte
				if err == nil {
					body, err = io.ReadAll(answer.Body)
					_ = answer.Body.Close()
				}
				mu.Lock()
				if err != nil || answer.StatusCode != http.StatusOK {
					failed++
					fmt.Println(route, err, string(body[:min(len(body), 200)]))
				} else {
					answered++
				}
				worst, stuck = max(worst, time.Since(start)), max(stuck, bytes.Count(body, []byte("its refresh has been waiting for")))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d answered, %d not, the slowest after %v; the status tells of %d refreshes that hang\n", answered, failed, worst, stuck)
	if failed > 0 || stuck == 0 {
		return 1
	}
	return 0
}
