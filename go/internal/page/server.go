package page

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"time"

	"golang.org/x/time/rate"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/reason"
	"clawker-fw/internal/statussocket"
)

const (
	// agentHeader is the header with the agent's address, which Envoy sets in place of the client's
	// (clawker_fw/stack/envoy/http.py).
	agentHeader = "X-Clawker-Fw-Agent"

	// Pages per agent and second, and the burst after a pause.
	pagesPerSecond, pagesAtOnce = 5, 20
	// mostReaders limits the counted agents.
	mostReaders = 4096

	// requestTime limits reading a request and writing its answer.
	requestTime = 5 * time.Second
)

type server struct {
	root  string
	store *Store
	other func(netip.Addr, string) (agentHistory, error)
	now   func() time.Time
	until *hotfile.File[int64] // the end of observing, in seconds since 1970

	mutex   sync.Mutex
	readers map[netip.Addr]*rate.Limiter
}

func newServer(root string, store *Store, other func(netip.Addr, string) (agentHistory, error)) *server {
	until := hotfile.New(filepath.Join(root, "hot", "subtrees", "subtrees.json"), parseUntil)
	return &server{root: root, store: store, other: other, now: time.Now, until: until, readers: map[netip.Addr]*rate.Limiter{}}
}

// parseUntil reads the end of observing from the file with the rules' subtrees.
func parseUntil(content []byte) (int64, error) {
	var file struct {
		Until int64 `json:"observe_until"`
	}
	err := json.Unmarshal(content, &file)
	return file.Until, err
}

// Serve serves the page, or answers its server's questions, on the recorder's socket.
func (s *Store) Serve(root string, socket *os.File, settings boot.PageSettings) error {
	listener, err := net.FileListener(socket)
	if err != nil {
		return err
	}
	if settings.Socket == "" {
		return s.Tell(listener, settings.Askers)
	}
	other := func(source netip.Addr, hardware string) (agentHistory, error) {
		return askAt(settings, source, hardware)
	}
	return overHTTP(newServer(root, s, other)).Serve(listener)
}

// overHTTP returns the page's HTTP server. Each connection ends after one request: Go's server would read the rest
// of a request's body before it answers, and no page needs one.
func overHTTP(pages http.Handler) *http.Server {
	httpServer := &http.Server{
		Handler: pages, ReadTimeout: requestTime, WriteTimeout: requestTime, ErrorLog: log.New(os.Stderr, "fwctl: ", 0),
	}
	httpServer.SetKeepAlivesEnabled(false)
	return httpServer
}

// Listen opens the page's socket. It outlives the recorder, so requests wait in it during a restart.
func Listen(settings boot.PageSettings) (*os.File, error) {
	if settings.Socket == "" {
		return statussocket.Handed(net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(settings.Listen)))
	}
	return statussocket.Prepare(settings.Socket, 0o666) // Envoy has a random user id; agents see no files of the container
}

// ServeHTTP answers one request: GET or HEAD of the page, as text or as JSON.
func (s *server) ServeHTTP(writer http.ResponseWriter, asked *http.Request) {
	headers := writer.Header()
	headers.Set("Cache-Control", "no-store")
	headers.Set("Content-Type", "text/plain; charset=utf-8")
	headers.Set("X-Content-Type-Options", "nosniff")
	source, err := netip.ParseAddr(strings.Join(asked.Header.Values(agentHeader), " ")) // several addresses don't parse
	if err != nil {
		refuse(writer, http.StatusInternalServerError, "Envoy did not name the agent of this request")
		return
	}
	asJSON := asked.URL.RawQuery == "format=json"
	switch {
	case asked.URL.Path != "/" || !asJSON && asked.URL.RawQuery != "":
		refuse(writer, http.StatusNotFound, "the only page is /, or /?format=json")
	case asked.Method != http.MethodGet && asked.Method != http.MethodHead:
		headers.Set("Allow", "GET, HEAD")
		refuse(writer, http.StatusMethodNotAllowed, "this page is read-only")
	case !s.reader(source).AllowN(s.now(), 1):
		headers.Set("Retry-After", "1")
		refuse(writer, http.StatusTooManyRequests, "too many requests for this page")
	default:
		s.answer(writer, source, asJSON)
	}
}

func refuse(writer http.ResponseWriter, status int, sentence string) {
	writer.WriteHeader(status)
	fmt.Fprintf(writer, "clawker-fw: %s\n", sentence)
}

// reader returns an agent's rate limiter. When there are too many, all are forgotten.
func (s *server) reader(source netip.Addr) *rate.Limiter {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	limiter := s.readers[source]
	if limiter == nil {
		if len(s.readers) >= mostReaders {
			clear(s.readers)
		}
		limiter = rate.NewLimiter(pagesPerSecond, pagesAtOnce)
		s.readers[source] = limiter
	}
	return limiter
}

func (s *server) answer(writer http.ResponseWriter, source netip.Addr, asJSON bool) {
	hardware, err := s.store.holders.hardwareOf(source)
	own, resolver := half{by: byProxy, err: err}, half{by: byResolver, err: err}
	if err == nil {
		own.agentHistory = s.store.History(source, hardware)
		resolver.agentHistory, resolver.err = s.other(source, hardware)
	}
	made := newDocument(source, resolver, own)
	if until, _ := s.until.Fresh(); s.now().Unix() < until {
		made.Observing = time.Unix(until, 0).UTC().Format(time.RFC3339)
	}
	content := append(encode(made), '\n')
	if asJSON {
		writer.Header().Set("Content-Type", "application/json")
	} else if content, err = made.text(s.root); err != nil {
		refuse(writer, http.StatusInternalServerError, "the text of this page is unreadable")
		return
	}
	writer.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = writer.Write(content) // HEAD requests get no body
}

// The page's server asks the other container's recorder over TCP, at a port that the packet filter opens only for
// Envoy. The question is a line with the agent's address and MAC address, the answer the agent's history as JSON.

const (
	// patience limits a question, on both sides.
	patience = time.Second
	// mostAnswered limits concurrent questions. More wait.
	mostAnswered = 16

	longestQuestion = 64
	// longestTold limits an answer: more than mostRefusals with the longest texts.
	longestTold = 1 << 18
)

// Tell answers the questions of these addresses, forever.
func (s *Store) Tell(listener net.Listener, askers []netip.Addr) error {
	statussocket.Serve(listener, mostAnswered, func(connection net.Conn) {
		from, err := netip.ParseAddrPort(connection.RemoteAddr().String())
		if err == nil && slices.Contains(askers, from.Addr().Unmap()) {
			_ = s.answer(connection) // the asker sees that there is no answer
		}
	})
	return net.ErrClosed
}

func (s *Store) answer(connection net.Conn) error {
	_ = connection.SetDeadline(time.Now().Add(patience))
	question, err := bufio.NewReader(io.LimitReader(connection, longestQuestion)).ReadString('\n')
	if err != nil {
		return err
	}
	source, hardware, err := readQuestion(question)
	if err != nil {
		return err
	}
	return json.NewEncoder(connection).Encode(s.History(source, hardware))
}

func question(source netip.Addr, hardware string) string {
	return source.String() + " " + hardware + "\n"
}

func readQuestion(text string) (netip.Addr, string, error) {
	address, hardware, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	source, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, "", err
	}
	read, err := net.ParseMAC(hardware)
	return source, read.String(), err
}

func askAt(settings boot.PageSettings, source netip.Addr, hardware string) (agentHistory, error) {
	dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(settings.Own, 0))}
	connection, err := dialer.Dial("tcp4", settings.Other.String())
	if err != nil {
		return agentHistory{}, err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(connection, question(source, hardware)); err != nil {
		return agentHistory{}, err
	}
	var answer agentHistory
	if err := json.NewDecoder(io.LimitReader(connection, longestTold)).Decode(&answer); err != nil {
		return agentHistory{}, err
	}
	if answer.Since.IsZero() {
		return agentHistory{}, errors.New("the answer lacks its start")
	}
	return answer, nil
}

// askCommand is the command for a person. The page itself asks nobody.
const askCommand = "clawker-fw denials --ask"

// longestDocument is smaller than Envoy's buffers, so that a slow agent keeps no connection to this process.
const longestDocument = 24 << 10

// The containers that refuse.
const (
	byResolver = "coredns"
	byProxy    = "envoy"
)

type half struct {
	by string
	agentHistory
	err error
}

type shown struct {
	By string `json:"by"`
	refused
	Sentence string `json:"sentence"`
	Command  string `json:"command,omitempty"` // for a person
}

type document struct {
	Agent      string               `json:"agent"`
	Observing  string               `json:"observing_until,omitempty"` // names without a rule pass until then
	Refusals   []shown              `json:"refusals"`                  // the latest first
	More       int                  `json:"more"`                      // further refusals
	Since      map[string]time.Time `json:"since"`                     // by container: earlier refusals are unknown
	Unreadable []string             `json:"unreadable"`
	Ask        string               `json:"ask"`
}

func newDocument(source netip.Addr, halves ...half) document {
	made := document{
		Agent: source.String(), Refusals: []shown{}, Since: map[string]time.Time{}, Unreadable: []string{}, Ask: askCommand,
	}
	var all []shown
	for _, half := range halves {
		if half.err != nil {
			made.Unreadable = append(made.Unreadable, half.by)
			continue
		}
		made.Since[half.by] = half.Since.UTC().Truncate(time.Second)
		made.More += half.More
		for _, refusal := range half.Refusals {
			all = append(all, show(half.by, refusal))
		}
	}
	slices.SortStableFunc(all, func(one, other shown) int { return other.Last.Compare(one.Last) })
	size := 0
	for number, refusal := range all {
		size += len(encode(refusal)) // its text lines are shorter
		if number >= mostRefusals || size > longestDocument {
			made.More += len(all) - number
			break
		}
		made.Refusals = append(made.Refusals, refusal)
	}
	return made
}

var plain = regexp.MustCompile(`^[A-Z]+/[A-Za-z0-9/._%-]*$`)

func show(by string, refusal refused) shown {
	refusal.First, refusal.Last = refusal.First.UTC(), refusal.Last.UTC()
	made := shown{By: by, Sentence: reason.Sentences[refusal.Reason]}
	if host, url := urlOf(refusal); url != "" {
		made.Command = reason.Command(refusal.Reason, host, url)
		if of := refusal.Method + refusal.Path; made.Command != "" && refusal.Path != "" {
			if plain.MatchString(of) {
				made.Command += refusal.Path + " --method " + refusal.Method
			} else {
				made.Command = "" // an agent's path may be shell syntax
			}
		}
	}
	for _, text := range []*string{&refusal.Protocol, &refusal.Name, &refusal.Address, &refusal.Method, &refusal.Path, &refusal.Reason} {
		*text = printable(*text)
	}
	if by == byProxy && refusal.Reason == reason.NoRule { // Envoy doesn't know the rules of other ports
		protocol := refusal.Protocol
		if protocol == "tls" {
			protocol = "https"
		}
		made.Sentence += fmt.Sprintf(" over %s on port %d", protocol, refusal.Port)
	}
	made.refused = refusal
	return made
}

// urlOf returns the refused host and its URL, or "" without one. A DNS query doesn't tell the protocol.
func urlOf(refusal refused) (host, url string) {
	host = strings.ToLower(strings.TrimSuffix(refusal.Name, "."))
	scheme, usual := map[string]string{"dns": "https", "tls": "https"}[refusal.Protocol], 443
	switch refusal.Protocol {
	case "dns":
		refusal.Port = usual
	case "http":
		scheme, usual = refusal.Protocol, 80
		if at := strings.LastIndex(host, ":"); at >= 0 {
			host = host[:at] // agents choose this port freely
		}
	case "https", "tcp", "udp":
		scheme = refusal.Protocol
	}
	if scheme == "" || !hostname.Is(host) || refusal.Port < 1 || refusal.Port > math.MaxUint16 {
		return "", ""
	}
	url = scheme + "://" + host
	if refusal.Port != usual || scheme == "tcp" || scheme == "udp" {
		url += ":" + strconv.Itoa(refusal.Port)
	}
	return host, url
}

func encode(value any) []byte {
	encoded, _ := json.Marshal(value) // all our values can be encoded
	return encoded
}

// Destination returns the refused host or address, with an unusual port.
func (s shown) Destination() string {
	name := cmp.Or(s.Name, s.Address)
	if s.Protocol == "dns" || s.Protocol == "http" && (s.Port == 80 || strings.Contains(s.Name, ":")) {
		return name
	}
	return name + ":" + strconv.Itoa(s.Port)
}

// printable quotes an agent's text if it could control a terminal or look like one of our lines, also in JSON.
func printable(text string) string {
	if strings.ContainsFunc(text, func(character rune) bool { return character <= ' ' || character >= 0x7f || character == '"' }) {
		return strconv.QuoteToASCII(text)
	}
	return text
}

// textPage is the page's template in the volume (templates/agents-page.txt.j2).
const textPage = "agents-page.txt"

func (d document) text(root string) ([]byte, error) {
	var page bytes.Buffer
	layout, err := template.New(textPage).Delims("[[", "]]").ParseFiles(filepath.Join(root, "boot", textPage))
	if err == nil {
		err = layout.Execute(&page, d)
	}
	return page.Bytes(), err
}
