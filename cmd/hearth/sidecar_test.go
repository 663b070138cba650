package main

import (
	"strings"
	"testing"
)

// TestOperatorsSidecar: the arguments with which the Prometheus Operator starts a sidecar are taken as they are, in its
// older way and with delayed compaction.
func TestOperatorsSidecar(t *testing.T) {
	common := "--prometheus.url=http://localhost:9090/ --grpc-address=:10901 --http-address=:10902 " +
		"--grpc-server-tls-cert=/c --grpc-server-tls-key=/k --grpc-server-tls-client-ca=/a " +
		"--grpc-server-tls-min-version=1.2 --grpc-server-tls-ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 --grpc-server-tls-curves=X25519 "
	rest := " --log.level=debug --log.format=json --min-time=-30d --prometheus.ready_timeout=20m " +
		"--prometheus.get_config_timeout=10s --prometheus.get_config_interval=1m " +
		"--prometheus.http-client-file=/etc/thanos/config/prometheus.http-client-file.yaml"
	for _, bucket := range []string{
		"--objstore.config-file=/etc/objstore.yml --tsdb.path=/prometheus",
		"--objstore.config-file=/etc/objstore.yml --tsdb.path=/prometheus --shipper.meta-file-name=thanos.shipper.json " +
			"--shipper.ignore-unequal-block-size --tracing.config-file=/etc/tracing.yml",
	} {
		args := append(strings.Fields(common+bucket+rest), "--tracing.config=type: OTLP\nconfig: {}\n")
		if strings.Contains(bucket, "tracing") {
			args = args[:len(args)-1]
		}
		p, log := parsed(t, append([]string{"sidecar"}, args...)...)
		if p.warnIdle(); log.Len() > 0 {
			t.Errorf("%s: %s", bucket, log)
		}
	}
}
