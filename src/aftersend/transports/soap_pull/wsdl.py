"""The two descriptions (WSDL) that client stacks make their calls from; only names and shapes are Pure360's."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

SERVICE = "/_bus/request.soap"
"""Where calls are posted to; with `?use=literal` those of the literal description."""

ENCODED, LITERAL = "ctrlPaint.wsdl", "ctrlPaintLiteral.wsdl"
"""The last part of the descriptions' addresses."""

_ENCODING = ' encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"'

_MAP = """\
    <xsd:schema targetNamespace="http://schemas.xmlsoap.org/soap/encoding/">
      <xsd:complexType name="Array">
        <xsd:sequence>
          <xsd:any minOccurs="0" maxOccurs="unbounded" processContents="lax"/>
        </xsd:sequence>
        <xsd:anyAttribute namespace="##any" processContents="lax"/>
      </xsd:complexType>
    </xsd:schema>
    <xsd:schema targetNamespace="http://xml.apache.org/xml-soap">
      <xsd:complexType name="mapItem">
        <xsd:sequence>
          <xsd:element name="key" type="xsd:anyType" nillable="true"/>
          <xsd:element name="value" type="xsd:anyType" nillable="true"/>
        </xsd:sequence>
      </xsd:complexType>
      <xsd:complexType name="Map">
        <xsd:sequence>
          <xsd:element name="item" type="apache:mapItem" minOccurs="0" maxOccurs="unbounded"/>
        </xsd:sequence>
      </xsd:complexType>
    </xsd:schema>
"""

_ARRAY = """\
    <xsd:schema targetNamespace="http://www.pure360.com/paint" elementFormDefault="qualified">
      <xsd:complexType name="paintArray">
        <xsd:sequence>
          <xsd:element name="pairs" type="tns:paintKeyValuePair" minOccurs="0" maxOccurs="unbounded"/>
        </xsd:sequence>
      </xsd:complexType>
      <xsd:complexType name="paintKeyValuePair">
        <xsd:all>
          <xsd:element name="key" type="xsd:string"/>
          <xsd:element name="value">
            <xsd:complexType>
              <xsd:sequence>
                <xsd:element name="str" type="xsd:string" minOccurs="0"/>
                <xsd:element name="arr" type="tns:paintArray" minOccurs="0"/>
              </xsd:sequence>
            </xsd:complexType>
          </xsd:element>
        </xsd:all>
      </xsd:complexType>
    </xsd:schema>
"""


def describe(base: str, *, literal: bool) -> bytes:
    """The description of one binding; calls go to the service below `base` (scheme and host, perhaps a path)."""
    kind, use = ("tns:paintArray", "literal") if literal else ("apache:Map", "encoded")
    address = quoteattr(f"{base}{SERVICE}{'?use=literal' if literal else ''}")
    body = f'<soap:body use="{use}" namespace="urn:localhost-paint"{_ENCODING}/>'
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<wsdl:definitions name="controller" targetNamespace="http://www.pure360.com/paint"
    xmlns:tns="http://www.pure360.com/paint" xmlns:apache="http://xml.apache.org/xml-soap"
    xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"
    xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/">
  <wsdl:types>
{_ARRAY if literal else _MAP}  </wsdl:types>
  <wsdl:message name="paintRequest">
    <wsdl:part name="contextId" type="xsd:string"/>
    <wsdl:part name="className" type="xsd:string"/>
    <wsdl:part name="processName" type="xsd:string"/>
    <wsdl:part name="entityData" type="{kind}"/>
    <wsdl:part name="processData" type="{kind}"/>
  </wsdl:message>
  <wsdl:message name="paintResponse">
    <wsdl:part name="Result" type="{kind}"/>
  </wsdl:message>
  <wsdl:portType name="paintPortType">
    <wsdl:operation name="handleRequest">
      <wsdl:input message="tns:paintRequest"/>
      <wsdl:output message="tns:paintResponse"/>
    </wsdl:operation>
  </wsdl:portType>
  <wsdl:binding name="paintBinding" type="tns:paintPortType">
    <soap:binding style="rpc" transport="http://schemas.xmlsoap.org/soap/http"/>
    <wsdl:operation name="handleRequest">
      <soap:operation soapAction="urn:localhost-paint#handleRequest"/>
      <wsdl:input>{body}</wsdl:input>
      <wsdl:output>{body}</wsdl:output>
    </wsdl:operation>
  </wsdl:binding>
  <wsdl:service name="paintService">
    <wsdl:port name="paintPort" binding="tns:paintBinding">
      <soap:address location={address}/>
    </wsdl:port>
  </wsdl:service>
</wsdl:definitions>
""".encode()
