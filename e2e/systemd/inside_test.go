package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// inside is what this test binary does in the host, as an ordinary user.
func inside(mode string) int {
	switch mode {
	case "load":
		return hammer()
	case "cold":
		return timeOne()
	case "get":
		return get(os.Args[1], os.Args[2])
	case "hold":
		hold(os.Args[1], strings.Repeat("GET "+os.Args[2]+" HTTP/1.1\r\nHost: x\r\n\r\n", 2000))
	case "hang":
		return hang(os.Args[1])
	case "flood":
		return flood(os.Args[1])
	case "fill":
		return fill(os.Args[1])
	case "probe":
		return probe(os.Args[1])
	}
	return 2
}

// hammer runs 8 clients until its input ends, and prints how many helpers ran,
// how many failed, the longest time in nanoseconds, and what the failed said.
func hammer() int {
	stop := make(chan struct{})
	go func() { // ends with the input
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	var mu sync.Mutex // guards what follows
	runs, failed, worst := 0, 0, time.Duration(0)
	var texts bytes.Buffer
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				start := time.Now()
				out, err := exec.Command("bloq-token").CombinedOutput()
				took := time.Since(start)
				mu.Lock()
				runs++
				worst = max(worst, took)
				if err != nil || bytes.Count(out, []byte(".")) != 2 {
					failed++
					fmt.Fprintf(&texts, "after %v: %v: %s", took, err, out)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d %d %d\n%s", runs, failed, worst, texts.String())
	return 0
}

// timeOne prints how long one helper took, in nanoseconds.
func timeOne() int {
	start := time.Now()
	out, err := exec.Command("bloq-token").CombinedOutput()
	took := time.Since(start)
	if err != nil {
		fmt.Printf("%v: %s", err, out)
		return 1
	}
	fmt.Println(took.Nanoseconds())
	return 0
}

// get prints the answer of the socket to GET target.
func get(socket, target string) int {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	answer, err := client.Get("http://bloq-agent" + target)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return 1
	}
	return 0
}

// hold keeps 64 connections with unread answers, until it is killed. What is
// closed comes again.
func hold(socket, requests string) {
	for range 64 {
		go func() {
			for ; ; time.Sleep(500 * time.Millisecond) {
				c, err := net.Dial("unix", socket)
				if err != nil {
					continue // the backlog is full
				}
				if _, err = io.WriteString(c, requests); err == nil {
					_, err = io.CopyN(io.Discard, c, 1)
				}
				if err == nil {
					_, _ = c.Write(make([]byte, 1<<20)) // waits until the daemon closes it
				}
				_ = c.Close()
			}
		}()
	}
	select {}
}
