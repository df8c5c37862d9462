package accounts

import (
	"strings"
	"testing"
)

func TestEnvironments(t *testing.T) {
	for name, want := range map[string]Endpoints{
		"prod": {
			"https://api.bloq.com/auth/login", "https://accounts.bloq.cloud/auth/token",
			"https://accounts.bloq.cloud/users/me/client-keys", "https://nodes.bloq.cloud",
		},
		"staging": {
			"https://accounts.bloqclouddev.com/auth", "https://accounts.bloqclouddev.com/auth/token",
			"https://accounts.bloqclouddev.com/users/me/client-keys", "https://nodes.bloqclouddev.com",
		},
		"local": {
			"http://127.0.0.1:4000/auth", "http://127.0.0.1:4000/auth/token",
			"http://127.0.0.1:4000/users/me/client-keys", "http://127.0.0.1:4002",
		},
	} {
		if got, err := Environment(name); err != nil || got != want || got.Check() != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := Environment("moon"); err == nil || !strings.Contains(err.Error(), "staging") {
		t.Errorf("%v", err)
	}
}

func TestOverride(t *testing.T) {
	e := FromAccountsURL("https://a.example/").Override(Endpoints{Login: "https://l.example/in", Nodes: "https://n.example"})
	want := Endpoints{"https://l.example/in", "https://a.example/auth/token", "https://a.example/users/me/client-keys", "https://n.example"}
	if e != want {
		t.Errorf("%+v", e)
	}
}

func TestWhichURLsAreAllowed(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://a.example/x": true, "https://a.example:8443": true, "https://[2001:db8::1]/": true,
		"http://127.0.0.1:4000": true, "http://127.9.9.9": true, "http://[::1]:4000/x": true,
		"http://a.example": false, "http://localhost:4000": false, "http://10.0.0.1": false, "http://0.0.0.0": false,
		"http://127.0.0.1.evil.example": false, "http://[::ffff:10.0.0.1]": false, "http://0x7f.1": false,
		"https://user@a.example": false, "https://u:p@a.example": false, "https://a.example#f": false, "https://a.example?q": false,
		"ftp://a.example": false, "a.example": false, "/auth": false, "https://": false, "https:a": false, "": false,
		"https://a.example/ x": false, "https://:443": false, "HTTPS://a.example": true,
	} {
		if err := CheckURL(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
	if err := CheckURL("https://u:hunter2@a.example"); strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error repeats a password: %v", err)
	}
	err := Endpoints{Login: "ftp://x", Token: "y", Keys: "https://ok.example"}.Check()
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not every mistake at once: %v", err)
	}
}

func TestOrigin(t *testing.T) {
	for url, want := range map[string]string{
		"https://A.Example/x": "https://a.example", "https://a.example:443": "https://a.example", "https://a.example:444/": "https://a.example:444",
		"http://127.0.0.1:80/x": "http://127.0.0.1", "http://127.0.0.1:4000": "http://127.0.0.1:4000",
		"https://[2001:DB8::1]:443/": "https://[2001:db8::1]", "http://[::1]:4000": "http://[::1]:4000",
	} {
		if got, err := Origin(url); got != want || err != nil {
			t.Errorf("Origin(%q) = %q, %v; want %q", url, got, err, want)
		}
	}
}

func FuzzAnOriginIsItsOwnOrigin(f *testing.F) {
	f.Add("https://a.example:443/x")
	f.Add("http://[::1]:4000")
	f.Add("https://[2001:DB8::1]:443/x")
	f.Fuzz(func(t *testing.T, url string) {
		o, err := Origin(url)
		if err != nil {
			return
		}
		if again, err := Origin(o); err != nil || again != o {
			t.Fatalf("%q has the origin %q, which has %q (%v)", url, o, again, err)
		}
	})
}
