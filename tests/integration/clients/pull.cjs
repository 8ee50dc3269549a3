// Pulls batches with node-soap and prints what it was told: node pull.cjs ADDRESS_OF_THE_DESCRIPTION CALLS

const soap = require("soap");
const [address, calls] = process.argv.slice(2);
const literal = address.includes("Literal");

const packed = (values) => {
  const entries = Object.entries(values);
  if (!literal) return { item: entries.map(([key, value]) => ({ key, value: listed(value) ? packed(value) : value })) };
  return { pairs: entries.map(([key, value]) => ({ key, value: listed(value) ? { arr: packed(value) } : { str: value } })) };
};

const listed = (value) => value !== null && typeof value === "object";

const text = (value) => (listed(value) && "$value" in value ? value.$value : value);

const unpacked = (value) => {
  const members = value?.pairs ?? value?.item;
  if (members === undefined) {
    const plain = text(value);
    return listed(plain) ? {} : (plain ?? null);
  }
  return Object.fromEntries(
    [members].flat().map((member) => {
      const inner = member.value;
      const content = listed(inner) && "arr" in inner ? inner.arr : listed(inner) && "str" in inner ? inner.str : inner;
      return [text(member.key), unpacked(content)];
    }),
  );
};

(async () => {
  const client = await soap.createClientAsync(address);
  let contextId = null;
  const told = [];
  for (const [className, processName, [entity, data]] of JSON.parse(calls)) {
    const request = { className, processName, entityData: packed(entity), processData: packed(data) };
    const [answer] = await client.handleRequestAsync(contextId ? { contextId, ...request } : request);
    const result = unpacked(answer.Result);
    if (processName === "login") contextId = result.resultData.bus_entity_context.beanId;
    told.push(result);
  }
  console.log(JSON.stringify(told));
})();
