package attempts

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"clawker-fw/internal/serving"
)

// dial connects within a time, and bounds everything that follows.
func dial(network, address string, connecting, all time.Duration) (net.Conn, error) {
	connection, err := net.DialTimeout(network, address, connecting)
	if err != nil {
		return nil, err
	}
	if err := connection.SetDeadline(time.Now().Add(all)); err != nil {
		connection.Close()
		return nil, err
	}
	return connection, nil
}

func askOver(connection net.Conn, query *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Timeout: serving.AnswerLimit}
	reply, _, err := client.ExchangeWithConn(query, &dns.Conn{Conn: connection})
	return reply, err
}

type heard struct {
	net.Conn
	anything bool
}

func (h *heard) Read(buffer []byte) (int, error) {
	size, err := h.Conn.Read(buffer)
	h.anything = h.anything || size > 0
	return size, err
}

// unverified returns the settings of TLS in which any certificate will do: nothing secret is sent.
func unverified(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
}

// shakeHands begins TLS, and reports whether a host has answered. Envoy says nothing of its own in TLS but that it denies
// access, so anything else that comes back is from a host.
func shakeHands(connection net.Conn, config *tls.Config) (agent *tls.Conn, answered bool, err error) {
	hearing := &heard{Conn: connection}
	agent = tls.Client(hearing, config)
	err = agent.Handshake()
	return agent, hearing.anything && !deniedAccess(err), err
}

func exchange(connection net.Conn, method, request string) (*http.Response, error) {
	if _, err := io.WriteString(connection, request); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
}

func begins(response *http.Response, words string) bool {
	text := make([]byte, len(words))
	_, err := io.ReadFull(response.Body, text)
	return err == nil && string(text) == words
}

// accessDenied is the alert with which Envoy ends TLS that no rule allows (RFC 8446, section 6.2).
const accessDenied = tls.AlertError(49)

// deniedAccess reports whether a handshake failed because of the alert. Go has no name for what an alert is wrapped in.
func deniedAccess(err error) bool {
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error" && remote.Err.Error() == accessDenied.Error()
}

const unanswered = "no answer"

// reason returns an error's text without our own address and port, which differ each time.
func reason(err error) string {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return unanswered
	}
	var failure syscall.Errno
	if errors.As(err, &failure) {
		return failure.Error()
	}
	return err.Error()
}

// ended describes the end of a connection without an answer. A reset and an ordinary end are the same.
func ended(err error) string {
	switch {
	case deniedAccess(err):
		return "access denied"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed without an answer"
	}
	return reason(err)
}
