package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"bloq-agent/ipc"
)

// environment is ours with the token in it.
func (l link) environment(variable string, t ipc.TokenAnswer) ([]string, error) {
	token := string(t.Token)
	if variable != "git" && variable != "npm" {
		return setVariable(os.Environ(), variable, token), nil
	}
	s, err := l.status(t.Profile)
	if err != nil {
		return nil, err
	}
	if len(s.Hosts) == 0 {
		return nil, fail(ipc.ExitUsage, "bloq-agent exec --env NAME", "%s: its hosts name no server that %s could be told of", t.Profile, variable)
	}
	if variable == "npm" {
		return forNpm(os.Environ(), s.Hosts, token), nil
	}
	return forGit(os.Environ(), s.Hosts, token)
}

// forGit has git send the token to origins, and follow no redirect from them:
// git sends its extra headers to the server that it was redirected to.
func forGit(env, origins []string, token string) ([]string, error) {
	for _, origin := range origins {
		settings := [][2]string{{"extraHeader", "Authorization: Bearer " + token}, {"followRedirects", "false"}}
		if strings.HasPrefix(origin, "http://") {
			// Such an origin is on this machine. A proxy would read the token.
			settings = append(settings, [2]string{"proxy", ""})
		}
		for _, s := range settings {
			var err error
			if env, err = gitEnvironment(env, "http."+origin+"/."+s[0], s[1]); err != nil {
				return nil, err
			}
		}
	}
	return env, nil
}

// forNpm has npm send the token to origins.
func forNpm(env, origins []string, token string) []string {
	for _, origin := range origins {
		// npm takes the rest of the name literally if it begins with //.
		_, host, _ := strings.Cut(origin, "://")
		env = setVariable(env, "npm_config_//"+host+"/:_authToken", token)
		if strings.HasPrefix(origin, "http://") {
			env = withoutProxy(env, host)
		}
	}
	list, _ := json.Marshal(origins) // strings
	guard := "--import=data:text/javascript," + url.PathEscape(fmt.Sprintf(npmGuard, list))
	options := variableOf(env, "NODE_OPTIONS")
	if strings.Contains(options, guard) { // exec runs in exec
		return env
	}
	return setVariable(env, "NODE_OPTIONS", strings.TrimPrefix(options+" "+guard, " "))
}

// withoutProxy has npm call the server at host, which is on this machine,
// without a proxy: the proxy would read the token.
func withoutProxy(env []string, host string) []string {
	direct := ""
	for _, name := range []string{"npm_config_noproxy", "NO_PROXY", "no_proxy"} { // npm's own order
		if direct = variableOf(env, name); direct != "" {
			break
		}
	}
	name := (&url.URL{Host: host}).Hostname()
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	return setVariable(env, "npm_config_noproxy", strings.TrimPrefix(direct+","+name, ","))
}

// npmGuard is a module that node loads before npm. npm's names for servers have
// no scheme, and it keeps the token when a redirect changes the port or the
// scheme: npm has no setting for either. So the module takes the token out of
// each request to another origin. It knows the token from npm's own variables.
const npmGuard = `import http from "node:http";
import https from "node:https";
import { syncBuiltinESMExports } from "node:module";
import { urlToHttpOptions } from "node:url";
const origins = %s;
const tokens = origins.map((o) => process.env["npm_config_" + o.replace(/^https?:/, "") + "/:_authToken"]).filter(Boolean);
for (const [module, scheme] of [[http, "http:"], [https, "https:"]]) {
  const { request } = module;
  module.request = function (...args) {
    const sent = request.apply(this, args);
    const to = {};
    for (const a of args) {
      if (typeof a === "string" || a instanceof URL) Object.assign(to, urlToHttpOptions(new URL(a)));
      else if (typeof a === "object") Object.assign(to, a);
    }
    const host = String(to.hostname || to.host || "localhost").replace(/^\[|\]$/g, "");
    const port = to.port || to.defaultPort || "";
    const origin = new URL((to.protocol || scheme) + "//" + (host.includes(":") ? "[" + host + "]" : host) + (port && ":" + port)).origin;
    const header = String(sent.getHeader("authorization"));
    if (!origins.includes(origin) && tokens.some((t) => header.includes(t))) sent.removeHeader("authorization");
    return sent;
  };
  module.get = function (...args) {
    const sent = module.request(...args);
    sent.end();
    return sent;
  };
}
syncBuiltinESMExports();
`

func variableOf(env []string, name string) string {
	for _, e := range env {
		if v, found := strings.CutPrefix(e, name+"="); found {
			return v
		}
	}
	return ""
}

// setVariable replaces name in env, or adds it.
func setVariable(env []string, name, value string) []string {
	out := make([]string, 0, len(env)+1)
	for _, e := range env {
		if !strings.HasPrefix(e, name+"=") {
			out = append(out, e)
		}
	}
	return append(out, name+"="+value)
}

// gitEnvironment adds a setting to those that GIT_CONFIG_COUNT announces, or
// gives it another value: git would send two headers where exec runs in exec.
func gitEnvironment(env []string, key, value string) ([]string, error) {
	count, at := 0, -1
	if s := variableOf(env, "GIT_CONFIG_COUNT"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil || count < 0 || count > 1000 {
			return nil, fail(ipc.ExitUsage, "unset GIT_CONFIG_COUNT", "GIT_CONFIG_COUNT is %.100q, which git would not take", s)
		}
	}
	for i := range count {
		if variableOf(env, fmt.Sprintf("GIT_CONFIG_KEY_%d", i)) == key {
			at = i
		}
	}
	if at < 0 {
		at, count = count, count+1
	}
	env = setVariable(env, "GIT_CONFIG_COUNT", strconv.Itoa(count))
	env = setVariable(env, fmt.Sprintf("GIT_CONFIG_KEY_%d", at), key)
	return setVariable(env, fmt.Sprintf("GIT_CONFIG_VALUE_%d", at), value), nil
}
