package page

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
)

var errAway = errors.New("away")

// asks answers an agent's request, with a given history from the other container.
func asks(s *scene, other func(netip.Addr, string) (agentHistory, error), method, target string, headers ...string) *httptest.ResponseRecorder {
	serving := serverOf(s, other)
	return asksOf(serving, method, target, headers...)
}

// volume has the text of the page, as the client writes it.
var volume = sync.OnceValue(func() string {
	text, err := os.ReadFile("../../../templates/agents-page.txt.j2")
	root, err2 := os.MkdirTemp("", "page")
	_, text, _ = bytes.Cut(text, []byte("#}\n"))
	err3 := os.Mkdir(filepath.Join(root, "boot"), 0o755)
	err4 := os.WriteFile(filepath.Join(root, "boot", "agents-page.txt"), text, 0o600)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		panic(err)
	}
	return root
})

func serverOf(s *scene, other func(netip.Addr, string) (agentHistory, error)) *server {
	return newServer(volume(), s.Store, other)
}

func asksOf(serving *server, method, target string, headers ...string) *httptest.ResponseRecorder {
	asked := httptest.NewRequest(method, target, nil)
	asked.Header.Set(agentHeader, someone.String())
	for at := 0; at < len(headers); at += 2 {
		asked.Header.Add(headers[at], headers[at+1])
	}
	response := httptest.NewRecorder()
	serving.ServeHTTP(response, asked)
	return response
}

func nothing(netip.Addr, string) (agentHistory, error) { return agentHistory{Since: then}, nil }

// The page shows an agent's refusals by both containers, latest first, with the reasons and a person's commands.
func TestPage(t *testing.T) {
	s := newScene()
	s.at = s.at.Add(time.Minute)
	s.Add(someone, []byte(`{"name":"b.test","port":8443,"protocol":"tls","reason":"no-rule","time":"2026-11-29T12:00:01Z"}`))
	s.Add(someone, []byte(`{"name":"B.test:80","port":80,"protocol":"http","method":"GET","path":"/x","reason":"denied","time":"2026-11-29T12:00:03Z"}`))
	s.Add(another, []byte(`{"name":"secret.test","port":443,"protocol":"tls","reason":"no-rule","time":"2026-11-29T12:00:04Z"}`))
	resolver := newScene()
	resolver.at = s.at
	for range 2 {
		resolver.refuseAt(someone, "a.test", then.Add(2*time.Second))
	}
	other := func(source netip.Addr, hardware string) (agentHistory, error) {
		return resolver.History(source, hardware), nil
	}

	got := asks(s, other, "GET", "/")
	want := `Refusals for this agent (10.213.0.7), latest first:

12:00:03Z http B.test:80 GET /x
  a rule denies this host (denied)
  clawker-fw explain http://b.test/x --method GET
12:00:02Z dns a.test (2 times)
  no rule allows this host (no-rule)
  clawker-fw explain https://a.test
12:00:01Z tls b.test:8443
  no rule allows this host over https on port 8443 (no-rule)
  clawker-fw explain https://b.test:8443

Refusals by the resolver are recorded since 12:00:00Z.
Refusals by the proxy are recorded since 12:00:00Z.
To allow a host, ask a person to run ` + "`clawker-fw denials --ask`" + ` on the machine that starts the containers, not in here. It asks about each host refused from then on. After the answer, try again.
`
	if got.Code != http.StatusOK || got.Body.String() != want {
		t.Errorf("%d\n%s", got.Code, got.Body)
	}
	for name, value := range map[string]string{"Cache-Control": "no-store", "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"} {
		if got.Header().Get(name) != value {
			t.Errorf("%s is %q", name, got.Header().Get(name))
		}
	}
	got = asks(s, other, "GET", "/?format=json")
	var read document
	if err := json.Unmarshal(got.Body.Bytes(), &read); err != nil || got.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%v, %s", err, got.Header().Get("Content-Type"))
	}
	var by []string
	for _, refusal := range read.Refusals {
		by = append(by, refusal.By+" "+refusal.Name+" "+refusal.Command)
	}
	if strings.Join(by, "\n") != "envoy B.test:80 clawker-fw explain http://b.test/x --method GET\ncoredns a.test clawker-fw explain https://a.test\n"+
		"envoy b.test clawker-fw explain https://b.test:8443" || read.Agent != someone.String() || len(read.Since) != 2 ||
		len(read.Unreadable) != 0 || read.Ask != askCommand {
		t.Errorf("%+v", read)
	}
}

// Until the end of observing, the page starts with that time.
func TestObserving(t *testing.T) {
	s := newScene()
	serving := serverOf(s, nothing)
	serving.root, serving.now = volume(), func() time.Time { return then }
	file := filepath.Join(t.TempDir(), "subtrees.json")
	serving.until = hotfile.New(file, parseUntil)
	for until, want := range map[int64]bool{then.Unix() + 60: true, then.Unix(): false} {
		must.Put(t, file, fmt.Sprintf(`{"names":["a.test"],"observe_until":%d}`, until))
		got := asksOf(serving, "GET", "/").Body.String()
		if strings.HasPrefix(got, "Until 2026-11-29T12:01:00Z, requests to public hosts without a rule pass") != want {
			t.Errorf("%d: %s", until, got)
		}
		if got := asksOf(serving, "GET", "/?format=json").Body.String(); strings.Contains(got, `"observing_until":"2026-11-29T12:01:00Z"`) != want {
			t.Errorf("%d: %s", until, got)
		}
	}
}

// An unreadable part is reported, and differs from an empty one.
func TestUnreadableIsNotEmpty(t *testing.T) {
	away := func(netip.Addr, string) (agentHistory, error) { return agentHistory{}, errAway }
	s := newScene()
	got := asks(s, away, "GET", "/").Body.String()
	if strings.Contains(got, "No refusals") || !strings.HasPrefix(got, "\nRefusals by the resolver can't be read right now: try again.\nRefusals by the proxy") {
		t.Error(got)
	}
	var read document
	if err := json.Unmarshal(asks(s, away, "GET", "/?format=json").Body.Bytes(), &read); err != nil || fmt.Sprint(read.Unreadable) != "[coredns]" ||
		len(read.Since) != 1 {
		t.Errorf("%v, %+v", err, read)
	}
	s.hardware = nil
	if err := json.Unmarshal(asks(s, nothing, "GET", "/?format=json").Body.Bytes(), &read); err != nil || len(read.Unreadable) != 2 {
		t.Errorf("without a neighbour: %v, %+v", err, read)
	}
	if got := asks(newScene(), nothing, "GET", "/").Body.String(); !strings.HasPrefix(got, "No refusals for this agent (10.213.0.7).\n\nRefusals by the resolver") {
		t.Error(got)
	}
}

// Other paths, queries and methods are refused, and so are requests without an agent, and too many.
func TestNothingElse(t *testing.T) {
	s := newScene()
	for _, test := range []struct {
		method, target string
		status         int
		headers        []string
	}{
		{"HEAD", "/", 200, nil},
		{"GET", "/?", 200, nil},
		{"GET", "/x", 404, nil},
		{"GET", "//", 404, nil},
		{"GET", "/../", 404, nil},
		{"GET", "/%2e%2e/", 404, nil},
		{"GET", "/%00", 404, nil},
		{"GET", "/?agent=10.213.0.8", 404, nil},
		{"GET", "/?format=json&format=json", 404, nil},
		{"GET", "/?" + strings.Repeat("a", 30_000), 404, nil},
		{"POST", "/", 405, nil},
		{"PUT", "/?format=json", 405, nil},
		{"OPTIONS", "/", 405, nil},
		{"TRACE", "/", 405, nil},
		{"get", "/", 405, nil},
		{"GET", "/", 500, []string{agentHeader, "10.213.0.8"}},
	} {
		got := asks(s, nothing, test.method, test.target, test.headers...)
		if got.Code != test.status || got.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %.40s: %d, %v", test.method, test.target, got.Code, got.Header())
		}
		if allow := got.Header().Get("Allow"); (test.status == 405) != (allow == "GET, HEAD") {
			t.Errorf("%s %.40s: allowed is %q", test.method, test.target, allow)
		}
	}
	nobody := httptest.NewRecorder()
	serverOf(s, nothing).ServeHTTP(nobody, httptest.NewRequest("GET", "/", nil))
	if nobody.Code != 500 {
		t.Errorf("of nobody: %d", nobody.Code)
	}
	serving := serverOf(s, nothing)
	serving.now = func() time.Time { return then }
	for number := range pagesAtOnce + 1 {
		if got := asksOf(serving, "GET", "/").Code; (got == 429) != (number == pagesAtOnce) {
			t.Errorf("page %d: %d", number, got)
		}
	}
	asked := httptest.NewRequest("GET", "/", nil)
	asked.Header.Set(agentHeader, another.String())
	response := httptest.NewRecorder()
	if serving.ServeHTTP(response, asked); response.Code != 200 {
		t.Errorf("another agent gets %d", response.Code)
	}
}

// hostile has terminal control characters, characters that JSON escapes, a line that looks like ours, and invalid
// text.
const hostile = "\x1b[2J\r\n12:00:00Z dns forged.test\n  no rule (no-rule)\t\"\\ \u202egpj \u2028 é \x00 \xff\xfe <script> $(id) `id`"

func hostileLine(name, path string) []byte {
	text, err := json.Marshal(map[string]any{
		"time": then, "protocol": "http", "port": 80, "name": name, "method": name, "path": path, "reason": "no-rule",
	})
	if err != nil {
		panic(err)
	}
	return text
}

// An agent's text can neither affect a reader's terminal nor look like our own lines.
func TestHostileNames(t *testing.T) {
	s := newScene()
	s.Add(someone, hostileLine(hostile, hostile))
	checkHarmless(t, s)
	if got := asks(s, nothing, "GET", "/").Body.String(); strings.Contains(got, "\n12:00:00Z dns forged.test") || strings.Contains(got, "clawker-fw explain") {
		t.Error(got)
	}
}

func checkHarmless(t *testing.T, s *scene) {
	t.Helper()
	text, asJSON := asks(s, nothing, "GET", "/").Body.String(), asks(s, nothing, "GET", "/?format=json").Body.Bytes()
	for at, character := range []byte(text + string(asJSON)) {
		if character >= 0x7f || character < ' ' && character != '\n' {
			t.Fatalf("octet %#x at %d of %q", character, at, text)
		}
	}
	var read document
	if err := json.Unmarshal(asJSON, &read); err != nil || strings.Count(string(asJSON), "\n") != 1 {
		t.Fatalf("%v: %q", err, asJSON)
	}
	if len(text) > longestDocument+2048 || len(asJSON) > longestDocument+2048 {
		t.Fatalf("%d and %d octets", len(text), len(asJSON))
	}
}

// However full the store is, a page is short.
func TestPagesAreShort(t *testing.T) {
	s := newScene()
	for number := range 100 {
		s.Add(someone, hostileLine(fmt.Sprint(number, strings.Repeat("\U0001f600", 300)), strings.Repeat("\x01", 300)))
	}
	checkHarmless(t, s)
	var read document
	if err := json.Unmarshal(asks(s, nothing, "GET", "/?format=json").Body.Bytes(), &read); err != nil || len(read.Refusals)+read.More != 100 {
		t.Errorf("%v: %d and %d more", err, len(read.Refusals), read.More)
	}
}

// One recorder asks the other over TCP, from an allowed address. Others get no answer, and a slow one is
// abandoned.
func TestTheOtherSiblingIsAsked(t *testing.T) {
	own, stranger := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	s := newScene()
	s.refuse(someone, "a.test")
	socket, err := Listen(boot.PageSettings{Listen: netip.AddrPortFrom(own, 0)})
	must.Succeed(t, err)
	listener := must.Get[net.Listener](t)(net.FileListener(socket))
	place := netip.MustParseAddrPort(listener.Addr().String())
	listener.Close()
	go s.Serve(volume(), socket, boot.PageSettings{Listen: place, Askers: []netip.Addr{own}})

	for range 2 * mostAnswered {
		if got, err := askAt(boot.PageSettings{Own: own, Other: place}, someone, first); err != nil || names(got) != "a.test:1" || !got.Since.Equal(then) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if got, err := askAt(boot.PageSettings{Own: own, Other: place}, someone, second); err != nil || len(got.Refusals) != 0 {
		t.Errorf("another one with the address: %+v, %v", got, err)
	}
	if got, err := askAt(boot.PageSettings{Own: stranger, Other: place}, someone, first); err == nil {
		t.Errorf("a stranger is told %+v", got)
	}
	silent := must.Open[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:0"))
	begun := time.Now()
	if _, err := askAt(boot.PageSettings{Own: own, Other: netip.MustParseAddrPort(silent.Addr().String())}, someone, first); err == nil || time.Since(begun) > 3*patience {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
}

// Requests wait in the socket while nothing serves it. It replaces one left by an ended process.
func TestRequestsWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.sock")
	must.Succeed(t, os.WriteFile(path, nil, 0o600))
	settings := boot.PageSettings{Socket: path}
	socket, err := Listen(settings)
	must.Succeed(t, err)
	connection := must.Open[net.Conn](t)(net.Dial("unix", path))
	fmt.Fprintf(connection, "GET / HTTP/1.1\r\nHost: clawker.internal\r\n%s: %s\r\nConnection: close\r\n\r\n", agentHeader, someone)
	s := newScene()
	go s.Serve(volume(), socket, settings)
	content, err := io.ReadAll(connection)
	if err != nil || !strings.HasPrefix(string(content), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(content), "Refusals by the resolver can't be read") {
		t.Errorf("%q, %v", content, err)
	}
}

// Connections with an endless body, with half a request, or that don't read, block nobody: others get answers
// meanwhile, and each of these connections ends.
func TestStalledRequests(t *testing.T) {
	s := newScene()
	listener := must.Get[net.Listener](t)(net.Listen("unix", filepath.Join(t.TempDir(), "page")))
	serving := overHTTP(serverOf(s, nothing))
	go func() { _ = serving.Serve(listener) }()
	t.Cleanup(func() { serving.Close() })
	send := func(text string) net.Conn {
		t.Helper()
		connection := must.Open[net.Conn](t)(net.Dial("unix", listener.Addr().String()))
		must.Get[int](t)(io.WriteString(connection, text))
		return connection
	}
	var ends sync.WaitGroup
	defer ends.Wait()
	about := "Host: clawker.internal\r\n" + agentHeader + ": " + another.String() + "\r\n"
	for text, answered := range map[string]bool{
		"GET / HTTP/1.1\r\n" + about + "Content-Length: 100\r\n\r\n":                       true,
		"POST / HTTP/1.1\r\n" + about + "Content-Length: 100\r\n\r\nx":                     true,
		"GET / HTTP/1.1\r\n" + about + "Transfer-Encoding: chunked\r\n\r\n5\r\n":           true,
		"GET / HTTP/1.1\r\n" + about + "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n": true,
		"GET / HTTP/1.1\r\n" + about:                                                       false,
		"GET / HT":                                                                         false,
		"":                                                                                 false,
	} {
		connection := send(text)
		began := time.Now()
		must.Succeed(t, connection.SetReadDeadline(began.Add(4*requestTime)))
		reader := bufio.NewReader(connection)
		if answered {
			first, err := reader.ReadString('\n')
			if took := time.Since(began); err != nil || !strings.HasPrefix(first, "HTTP/1.1 ") || took > requestTime/2 {
				t.Errorf("%q: %q after %s: %v", text, first, took, err)
			}
		}
		ends.Go(func() { // all of them at the same time
			if _, err := io.Copy(io.Discard, reader); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q: the connection has not ended", text)
			}
		})
	}
	client := &http.Client{Transport: &http.Transport{Dial: func(string, string) (net.Conn, error) {
		return net.Dial("unix", listener.Addr().String())
	}}, Timeout: requestTime / 2}
	asked := must.Get[*http.Request](t)(http.NewRequest("GET", "http://clawker.internal/", nil))
	asked.Header.Set(agentHeader, someone.String())
	answer := must.Get[*http.Response](t)(client.Do(asked))
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Error(answer.Status)
	}
}
