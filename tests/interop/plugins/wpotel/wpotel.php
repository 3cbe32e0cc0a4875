<?php
/**
 * Plugin Name: WordPress OpenTelemetry - Minimal Version
 * Description: The plugin that this project began with, as it was written: one span a request, posted to port 14268.
 * Version: 1.0.0
 *
 * It stands here as a sender for tests, with its faults: two trace ids, float times, tags without types, a process
 * within the span, and a content type that no Jaeger takes. Do not mend it.
 *
 * @package WPOtel
 */

namespace WPOtel;

class MinimalPlugin {
    const VERSION = '1.0.0';

    private $config;
    private $current_trace;

    public function __construct() {
        $this->config = $this->get_config();
        $this->init_hooks();
    }

    private function get_config() {
        return [
            'enabled' => get_option('wpotel_enabled', true),
            'endpoint' => get_option('wpotel_endpoint', 'http://localhost:14268/api/traces'),
            'service_name' => get_option('wpotel_service_name', parse_url(home_url(), PHP_URL_HOST)),
            'sampling_rate' => get_option('wpotel_sampling_rate', 0.1),
            'environment' => wp_get_environment_type()
        ];
    }

    private function init_hooks() {
        if (!$this->config['enabled']) return;

        // Core tracing
        add_action('init', [$this, 'start_trace'], 1);
        add_action('shutdown', [$this, 'end_trace'], 9999);

        // Admin interface
        add_action('admin_menu', [$this, 'add_admin_menu']);

        // Activation hook for first-time setup
        register_activation_hook(__FILE__, [$this, 'activate']);
    }

    public function start_trace() {
        // Simple sampling decision
        if (mt_rand(1, 1000) > ($this->config['sampling_rate'] * 1000)) {
            return;
        }

        $this->current_trace = [
            'traceID' => $this->generate_id(32),
            'spans' => [[
                'traceID' => $this->generate_id(32),
                'spanID' => $this->generate_id(16),
                'operationName' => 'wordpress.request',
                'startTime' => microtime(true) * 1000000,
                'tags' => $this->get_request_tags(),
                'process' => [
                    'serviceName' => $this->config['service_name'],
                    'tags' => [
                        ['key' => 'environment', 'value' => $this->config['environment']]
                    ]
                ]
            ]]
        ];
    }

    public function end_trace() {
        if (!$this->current_trace) return;

        $span = &$this->current_trace['spans'][0];
        $span['duration'] = (microtime(true) * 1000000) - $span['startTime'];
        $span['tags'][] = ['key' => 'http.status_code', 'value' => http_response_code()];

        // Non-blocking export
        wp_remote_post($this->config['endpoint'], [
            'body' => json_encode(['data' => [$this->current_trace]]),
            'headers' => ['Content-Type' => 'application/json'],
            'timeout' => 0.5,
            'blocking' => false
        ]);
    }

    public function activate() {
        // Set up default options
        add_option('wpotel_enabled', true);
        add_option('wpotel_first_install', current_time('mysql'));

        // Show welcome notice
        set_transient('wpotel_welcome_notice', true, 5);
    }

    public function add_admin_menu() {
        add_options_page('OpenTelemetry', 'OpenTelemetry', 'manage_options', 'wpotel', '__return_null');
    }

    private function get_request_tags() {
        return [
            ['key' => 'http.method', 'value' => $_SERVER['REQUEST_METHOD'] ?? null],
            ['key' => 'http.url', 'value' => ($_SERVER['HTTP_HOST'] ?? '') . ($_SERVER['REQUEST_URI'] ?? '')],
            ['key' => 'http.user_agent', 'value' => $_SERVER['HTTP_USER_AGENT'] ?? ''],
            ['key' => 'wp.user_id', 'value' => get_current_user_id()],
            ['key' => 'wp.is_admin', 'value' => is_admin()],
            ['key' => 'wp.doing_cron', 'value' => wp_doing_cron()]
        ];
    }

    private function generate_id($length) {
        return bin2hex(random_bytes($length / 2));
    }
}

new MinimalPlugin();
