// The verb raw: bytes as they are written, for requests that no client would send.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rawResult is what came back. Whether that is a refusal is for those to say who could have been reached.
type rawResult struct {
	OK    bool     `json:"ok"` // the bytes were sent
	Reply string   `json:"reply"`
	Error *failure `json:"error"`
}

func declareRaw(flags *flag.FlagSet) action {
	bytes := flags.String("hex", "", "the bytes to send, in `HEXADECIMAL`")
	timeout := flags.Duration("timeout", time.Second, "limit for all; an answer that goes on is cut")
	udp := flags.Bool("udp", false, "send a datagram and wait for another one; it is a failure if none comes")
	options := flags.String("options", "", "of the datagram's IP header (RFC 791, section 3.1), in `HEXADECIMAL`")
	name := flags.String("tls", "", "send them in TLS with this server `NAME`, whoever answers")
	pieces := flags.Bool("pieces", false, "send every byte on its own")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		host, port, err := net.SplitHostPort(arguments[0])
		if err != nil {
			return false, err
		}
		sent, err := hex.DecodeString(*bytes)
		if err != nil {
			return false, err
		}
		header, err := hex.DecodeString(*options)
		if err != nil {
			return false, err
		}
		to := destination{host: host, port: port, pieces: *pieces, secure: *name != "", serverName: *name}
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		var result rawResult
		if *udp {
			result, err = sendDatagram(ctx, to, sent, header)
		} else {
			result, err = sendRaw(ctx, to, sent)
		}
		result.OK, result.Error = err == nil, failureOf(err)
		out.print(result)
		return result.OK, nil
	}
}

func sendRaw(ctx context.Context, to destination, sent []byte) (rawResult, error) {
	conn, _, err := open(ctx, to)
	if err != nil {
		return rawResult{}, err
	}
	defer conn.abandon()
	defer conn.within(ctx)()
	if _, err := conn.Write(sent); err != nil {
		return rawResult{}, err
	}
	var reply head
	_, _ = io.Copy(&reply, conn.reader) // what is not ended by the other side is ended by the time
	return rawResult{Reply: reply.kept.String()}, nil
}

// sendDatagram sends one datagram and waits for one. Nobody there is told by the kernel, as for a connection.
func sendDatagram(ctx context.Context, to destination, sent, options []byte) (rawResult, error) {
	dialer := &net.Dialer{Control: func(_, _ string, socket syscall.RawConn) (err error) {
		failed := socket.Control(func(socket uintptr) {
			if len(options) > 0 {
				err = unix.SetsockoptString(int(socket), unix.IPPROTO_IP, unix.IP_OPTIONS, string(options))
			}
		})
		return errors.Join(failed, err)
	}}
	conn, err := dialer.DialContext(ctx, "udp", net.JoinHostPort(to.host, to.port))
	if err != nil {
		return rawResult{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err = conn.Write(sent); err != nil {
		return rawResult{}, err
	}
	reply := make([]byte, shownBody)
	size, err := conn.Read(reply)
	return rawResult{Reply: string(reply[:size])}, err
}
