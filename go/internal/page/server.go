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
	// agentHeader is the header in which Envoy says whose request it is. It replaces whatever a client sends
	// (clawker_fw/stack/envoy/http.py).
	agentHeader = "X-Clawker-Fw-Agent"

	// An agent gets so many pages in a second, pagesAtOnce after it was quiet.
	pagesPerSecond, pagesAtOnce = 5, 20
	// mostReaders bounds the agents whose pages are counted.
	mostReaders = 4096

	// requestTime is how long a request may take to arrive, and how long its answer may take to be read.
	requestTime = 5 * time.Second
)

type server struct {
	root  string
	store *Store
	other func(netip.Addr, string) (agentHistory, error)
	now   func() time.Time
	until *hotfile.File[int64] // of observing, in seconds since 1970

	mutex   sync.Mutex
	readers map[netip.Addr]*rate.Limiter
}

func newServer(root string, store *Store, other func(netip.Addr, string) (agentHistory, error)) *server {
	until := hotfile.New(filepath.Join(root, "hot", "subtrees", "subtrees.json"), parseUntil)
	return &server{root: root, store: store, other: other, now: time.Now, until: until, readers: map[netip.Addr]*rate.Limiter{}}
}

// parseUntil reads until when names without a rule pass, in the file that also has the names of the subtree rules.
func parseUntil(content []byte) (int64, error) {
	var file struct {
		Until int64 `json:"observe_until"`
	}
	err := json.Unmarshal(content, &file)
	return file.Until, err
}

// Serve serves the page, or answers the one that does, on the socket that a recorder was given for it.
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

// overHTTP returns what serves pages over HTTP. Each connection is for one request and ends with its answer: the server of Go
// would wait for the rest of a request's body before it answers, and no page has to do with one.
func overHTTP(pages http.Handler) *http.Server {
	httpServer := &http.Server{
		Handler: pages, ReadTimeout: requestTime, WriteTimeout: requestTime, ErrorLog: log.New(os.Stderr, "fwctl: ", 0),
	}
	httpServer.SetKeepAlivesEnabled(false)
	return httpServer
}

// Listen opens the socket for the page. It outlives the recorder, so that requests wait in it while that is started again.
func Listen(settings boot.PageSettings) (*os.File, error) {
	if settings.Socket == "" {
		return statussocket.Handed(net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(settings.Listen)))
	}
	return statussocket.Prepare(settings.Socket, 0o666) // Envoy is whoever it is; agents see no file of the container
}

// ServeHTTP answers one request: GET or HEAD of the page, as text or as JSON.
func (s *server) ServeHTTP(writer http.ResponseWriter, asked *http.Request) {
	headers := writer.Header()
	headers.Set("Cache-Control", "no-store")
	headers.Set("Content-Type", "text/plain; charset=utf-8")
	headers.Set("X-Content-Type-Options", "nosniff")
	source, err := netip.ParseAddr(strings.Join(asked.Header.Values(agentHeader), " ")) // several are no address
	if err != nil {
		refuse(writer, http.StatusInternalServerError, "it is not known whose request this is")
		return
	}
	asJSON := asked.URL.RawQuery == "format=json"
	switch {
	case asked.URL.Path != "/" || !asJSON && asked.URL.RawQuery != "":
		refuse(writer, http.StatusNotFound, "there is only one page: /, and /?format=json")
	case asked.Method != http.MethodGet && asked.Method != http.MethodHead:
		headers.Set("Allow", "GET, HEAD")
		refuse(writer, http.StatusMethodNotAllowed, "this page can only be read")
	case !s.reader(source).AllowN(s.now(), 1):
		headers.Set("Retry-After", "1")
		refuse(writer, http.StatusTooManyRequests, "this page is asked for too often")
	default:
		s.answer(writer, source, asJSON)
	}
}

func refuse(writer http.ResponseWriter, status int, sentence string) {
	writer.WriteHeader(status)
	fmt.Fprintf(writer, "clawker-fw: %s\n", sentence)
}

// reader returns how many more pages an agent gets. All are forgotten when there are too many to remember.
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
		own.agentHistory = s.store.Told(source, hardware)
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
		refuse(writer, http.StatusInternalServerError, "the text of this page can't be read")
		return
	}
	writer.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = writer.Write(content) // nothing of it is sent to who asks for the headers alone
}

// The page's server asks the other sibling's recorder over TCP, at a port that the packet filter opens for Envoy alone: one
// line with the agent's address and its hardware address, answered with what is known about it, as JSON.

const (
	// patience is how long a question may take, on both sides.
	patience = time.Second
	// mostAnswered is how many questions are answered at once. Further ones wait.
	mostAnswered = 16

	longestQuestion = 64
	// longestTold bounds what an answer may have: more than mostRefusals with the longest texts.
	longestTold = 1 << 18
)

// Tell answers questions about agents from those addresses that may ask, for ever.
func (s *Store) Tell(listener net.Listener, askers []netip.Addr) error {
	statussocket.Serve(listener, mostAnswered, func(connection net.Conn) {
		from, err := netip.ParseAddrPort(connection.RemoteAddr().String())
		if err == nil && slices.Contains(askers, from.Addr().Unmap()) {
			_ = s.answer(connection) // who has asked sees that there is no answer
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
	return json.NewEncoder(connection).Encode(s.Told(source, hardware))
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
		return agentHistory{}, errors.New("the answer does not say since when")
	}
	return answer, nil
}

// askCommand is how a person is asked. Nothing on the page asks by itself.
const askCommand = "clawker-fw denials --ask"

// longestDocument is how many octets the refusals of a page may take: less than Envoy buffers, so that no agent that reads
// slowly keeps a connection to this process.
const longestDocument = 24 << 10

// The siblings, which refuse apart from each other.
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
	Command  string `json:"command,omitempty"` // what a person can do about it
}

type document struct {
	Agent      string               `json:"agent"`
	Observing  string               `json:"observing_until,omitempty"` // until then, names without a rule pass
	Refusals   []shown              `json:"refusals"`                  // the latest first
	More       int                  `json:"more"`                      // further ones that are not on the page
	Since      map[string]time.Time `json:"since"`                     // by sibling: what was before is not known
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
		for _, known := range half.Refusals {
			all = append(all, show(half.by, known))
		}
	}
	slices.SortStableFunc(all, func(one, other shown) int { return other.Last.Compare(one.Last) })
	octets := 0
	for number, refusal := range all {
		octets += len(encode(refusal)) // its lines of text are shorter
		if number >= mostRefusals || octets > longestDocument {
			made.More += len(all) - number
			break
		}
		made.Refusals = append(made.Refusals, refusal)
	}
	return made
}

var plain = regexp.MustCompile(`^[A-Z]+/[A-Za-z0-9/._%-]*$`)

func show(by string, known refused) shown {
	known.First, known.Last = known.First.UTC(), known.Last.UTC()
	made := shown{By: by, Sentence: reason.Sentences[known.Reason]}
	if host, url := urlOf(known); url != "" {
		made.Command = reason.Command(known.Reason, host, url)
		if of := known.Method + known.Path; made.Command != "" && known.Path != "" {
			if plain.MatchString(of) {
				made.Command += known.Path + " --method " + known.Method
			} else {
				made.Command = "" // what an agent writes into a path may mean something to a shell
			}
		}
	}
	for _, text := range []*string{&known.Protocol, &known.Name, &known.Address, &known.Method, &known.Path, &known.Reason} {
		*text = printable(*text)
	}
	if by == byProxy && known.Reason == reason.NoRule { // Envoy knows of no rules for other ports, so it says no more than this
		protocol := known.Protocol
		if protocol == "tls" {
			protocol = "https"
		}
		made.Sentence += fmt.Sprintf(" over %s on port %d", protocol, known.Port)
	}
	made.refused = known
	return made
}

// urlOf returns the host that was refused, and its URL, or "" if it has none. A question to the resolver does not say what for.
func urlOf(known refused) (host, url string) {
	host = strings.ToLower(strings.TrimSuffix(known.Name, "."))
	scheme, usual := map[string]string{"dns": "https", "tls": "https"}[known.Protocol], 443
	switch known.Protocol {
	case "dns":
		known.Port = usual
	case "http":
		scheme, usual = known.Protocol, 80
		if at := strings.LastIndex(host, ":"); at >= 0 {
			host = host[:at] // its port is not the one that counts
		}
	case "https", "tcp", "udp":
		scheme = known.Protocol
	}
	if scheme == "" || !hostname.Is(host) || known.Port < 1 || known.Port > math.MaxUint16 {
		return "", ""
	}
	url = scheme + "://" + host
	if known.Port != usual || scheme == "tcp" || scheme == "udp" {
		url += ":" + strconv.Itoa(known.Port)
	}
	return host, url
}

func encode(value any) []byte {
	encoded, _ := json.Marshal(value) // no value of ours can't be encoded
	return encoded
}

// Destination returns the host or address that was refused, with the port unless it is the usual one.
func (s shown) Destination() string {
	name := cmp.Or(s.Name, s.Address)
	if s.Protocol == "dns" || s.Protocol == "http" && (s.Port == 80 || strings.Contains(s.Name, ":")) {
		return name
	}
	return name + ":" + strconv.Itoa(s.Port)
}

// printable returns a text that an agent has chosen without anything that a terminal could obey, or that looks like a line of
// ours. Text of this kind is the same in JSON.
func printable(text string) string {
	if strings.ContainsFunc(text, func(character rune) bool { return character <= ' ' || character >= 0x7f || character == '"' }) {
		return strconv.QuoteToASCII(text)
	}
	return text
}

// textPage is the page's template in the volume, as the client wrote it there (templates/agents-page.txt.j2).
const textPage = "agents-page.txt"

func (d document) text(root string) ([]byte, error) {
	var page bytes.Buffer
	layout, err := template.New(textPage).Delims("[[", "]]").ParseFiles(filepath.Join(root, "boot", textPage))
	if err == nil {
		err = layout.Execute(&page, d)
	}
	return page.Bytes(), err
}
