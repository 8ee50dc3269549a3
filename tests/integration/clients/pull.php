<?php
// Pulls batches with PHP's SoapClient and prints what it was told: php pull.php ADDRESS_OF_THE_DESCRIPTION CALLS

ini_set('soap.wsdl_cache_enabled', '0');
$client = new SoapClient($argv[1], ['features' => SOAP_SINGLE_ELEMENT_ARRAYS, 'cache_wsdl' => WSDL_CACHE_NONE]);
$literal = strpos($argv[1], 'Literal') !== false;

function packed($values)
{
    global $literal;
    if (!$literal) {
        return $values ?: null;
    }
    $pairs = [];
    foreach ($values as $key => $value) {
        $pairs[] = ['key' => $key, 'value' => is_array($value) ? ['arr' => packed($value)] : ['str' => $value]];
    }
    return ['pairs' => $pairs];
}

function unpacked($value)
{
    if (!is_object($value)) {
        return $value;
    }
    $found = [];
    foreach ($value->pairs ?? [] as $pair) {
        $found[$pair->key] = isset($pair->value->arr) ? unpacked($pair->value->arr) : ($pair->value->str ?? null);
    }
    return $found;
}

$context = $literal ? '' : null;
$told = [];
foreach (json_decode($argv[2], true) as [$class, $process, $values]) {
    $result = unpacked($client->handleRequest($context, $class, $process, packed($values[0]), packed($values[1])));
    if ($process === 'login') {
        $context = $result['resultData']['bus_entity_context']['beanId'];
    }
    $told[] = $result;
}
echo json_encode($told);
